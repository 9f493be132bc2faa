"""The network of MelNet (arXiv 1906.01083): one file per part, from the recurrent kernel up to a tier."""
