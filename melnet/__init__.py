"""MelNet (arXiv 1906.01083): audio, spectrograms, the model, its training and its sampling."""
