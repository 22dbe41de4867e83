"""The errors that a user can cause and fix. Everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """Something outside the code is wrong. The message says what is wrong, the value, and what to do."""


class Conflict(Exception):
    """A conditional write failed: another writer's object is there."""
