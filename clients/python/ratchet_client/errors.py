"""The one exception of this package."""


class RatchetError(Exception):
    """A vote that was not taken; the message says why and what to do.

    `status` is the router's HTTP status: None if no answer came, or if nothing was sent.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
