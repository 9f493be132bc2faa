"""Recordings to log-mel spectrograms and back: decoding, resampling, mel filter bank, Griffin-Lim."""
