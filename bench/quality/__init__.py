"""How well the models do what they should, one file per claim; some train for up to an hour."""
