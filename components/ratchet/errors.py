"""The errors that a user can cause and fix. Everything else is a bug and keeps its traceback."""

import re

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
"""User and password of a URL. A password's own `@` and `/` are escaped in a valid one."""


class UserError(Exception):
    """Something outside the code is wrong. The message says what is wrong, the value, and what to do."""


class Conflict(Exception):
    """A conditional write failed: another writer's object is there."""


def without_credentials(text: str) -> str:
    """Return the text with `***@` in place of every user and password in a URL, for logs, errors and records."""
    return CREDENTIALS.sub("***@", text)
