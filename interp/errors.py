"""The one error that users are meant to read."""


class InterpError(ValueError):
    """Something the caller can mend. The message names the value, the limit and the way out."""
