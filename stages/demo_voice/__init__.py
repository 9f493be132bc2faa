"""The built-in singer: a synthesiser of one mezzo-soprano, a source and a filter (Fant 1960).

``melody`` composes notes and syllables, ``phones`` lists the formants of every speech sound, ``controls`` has the pitch
with its vibrato, ``source`` the glottis and the noise of air, ``tract`` the formant filter, ``room`` the reverberation.
``voice`` sings a phrase with them; ``song`` writes phrases to files.
"""
