"""Errors that their user can mend."""


class MelnetError(ValueError):
    """Input that cannot be used; the message is one line that says what it is and why."""
