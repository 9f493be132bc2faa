"""Benchmarks: ``python -m bench.NAME`` measures a claim of the README's performance table against its reference.

The last line that a benchmark prints is its claims as JSON. ``python -m bench.all`` runs all of them.
"""
