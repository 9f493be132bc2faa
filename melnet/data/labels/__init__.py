"""Timed labels beside a recording: which phoneme is sung when."""
