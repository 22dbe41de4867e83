"""How a command can fail. Retries are decided by these classes, and the message is the command's own."""

EXIT_USER = 2  # the command line's contract: the cause is outside the code, and a retry fails again
EXIT_SIGNALS = 128  # a shell and a container runtime report death by signal n as 128 + n


class Refused(Exception):
    """The user must fix something: a bad row, a wrong setting. A retry would fail again."""


class Broke(Exception):
    """A bug, or a neighbour that was away. Another try is free: what was finished is found."""


class Lost(Exception):
    """Killed, evicted, out of memory, its node gone. The next try resumes."""


def failure(command: str, exit_code: int | None, words: str) -> Refused | Broke | Lost:
    """Return the exception for an exit code; None where no exit was observed."""
    if exit_code == EXIT_USER:
        return Refused(f"{command} needs a fix from you:\n{words}")
    if exit_code is None:
        return Lost(f"{command} was lost:\n{words}")
    if exit_code < 0 or exit_code > EXIT_SIGNALS:
        return Lost(f"{command} was killed (exit code {exit_code}); its last words:\n{words}")
    return Broke(f"{command} ended with exit code {exit_code}; its last words:\n{words}")
