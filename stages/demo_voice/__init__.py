"""The built-in singer: a synthesiser of one mezzo-soprano, a sound source and a filter (Fant 1960)."""
