"""Training one tier: optimiser and loop, checkpoints, several devices, what it costs."""
