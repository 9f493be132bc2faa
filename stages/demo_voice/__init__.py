"""The built-in singer: a synthetic voice, the melodies and syllables she sings."""
