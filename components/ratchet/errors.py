"""The errors a user can cause and mend. Everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """Something outside the code is wrong. The message says what, the value, and what to do."""


class Conflict(Exception):
    """A create-only or match-only write lost: somebody else's object is there."""
