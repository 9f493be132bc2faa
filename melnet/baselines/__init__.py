"""Simple densities that a model of spectrograms must beat, and noise that must be told from recordings.

The densities are fitted on normalised log-mel frames and score the same elements as MelNet, in nats. The negative
logarithm of a density may be below zero. All standard deviations are bounded below by ``min_sigma``, as MelNet's are:
values on the log floor are all equal, and an ever narrower Gaussian on them would score any number of nats.
"""
