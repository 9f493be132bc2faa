"""Metrics of a model of spectrograms: likelihoods, and how far generated spectrograms are from recorded ones."""
