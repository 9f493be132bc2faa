"""A harmonic-plus-noise vocoder: log-mel spectrograms to the voice of the recordings it was trained on.

One network reads the pitch off the spectrogram, a second one the spectral envelopes of a harmonic and of a noise part
(:mod:`networks`). Band-limited pulses at that pitch (:mod:`source`) and white noise, each filtered by its envelope
(:mod:`filters`), add up to the voice, as in Serra and Smith's spectral modelling synthesis (1990) and in the neural
source-filter models (arXiv 1904.12088). :mod:`synthesis` puts them together, at once or as a stream.
"""
