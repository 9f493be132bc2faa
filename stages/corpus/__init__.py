"""The corpus: which files there are, the manifest, and their conversion to mono FLAC."""
