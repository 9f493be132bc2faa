"""Quality of the trained models, one file per claim; some train for up to an hour."""
