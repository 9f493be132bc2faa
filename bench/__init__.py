"""One module per claim of the README's performance table: ``python -m bench.NAME`` measures it against its reference.

Every module prints its claims as one line of JSON at its end; ``python -m bench.all`` runs them all.
"""
