"""Print progress, step results and errors at the terminal or into a log."""

import errno
import sys
import traceback
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from ratchet.errors import UserError, without_credentials
from ratchet.step import Step, StepResult

say = Console(stderr=True, highlight=False)
# Messages of Rust, Python and SQLite; SQLite calls it an I/O error if a quota is full.
DISK_TROUBLE = ("No space left on device", "File too large", "disk is full", "disk I/O error")
DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def announce(step: Step, ran: StepResult | None) -> None:
    """Print a step's result on stderr; nothing while it is still running (None)."""
    if ran is not None:
        say.print(describe(step, ran), markup=False, soft_wrap=True)


def describe(step: Step, ran: StepResult) -> str:
    """Return a step's result as one line: rows in and out, drops by reason, outcome, seconds."""
    flows = []
    for unit, flow in ran.manifest.flows.items():
        drops = ", ".join(f"{reason} {count:,}" for reason, count in sorted(flow.drops.items()) if count)
        flows.append(f"{unit} {flow.rows_in:,} in, {flow.rows_out:,} out" + (f", dropped: {drops}" if drops else ""))
    outcome = ran.manifest.facts.get("outcome") or ran.manifest.facts.get("verdict") or ""
    cost = f"{ran.manifest.seconds:.1f} s" if ran.is_new else "done before, nothing to do"
    return "  ".join(part for part in (f"{step.name:<18}", "; ".join(flows), str(outcome), f"[{cost}]") if part)


def guarded(program: Callable[[], None]) -> None:
    """Run a program; turn an error that the user can fix into one message on stderr and exit code 2.

    Any other error is a traceback and exit code 1. Neither tells credentials of URLs.
    """
    try:
        program()
    except UserError as error:
        message = str(error)
    except Exception as error:
        if _is_disk_full(error):
            message = f"the disk is full or failing ({error}). Free some space and run again; finished steps are kept."
        elif isinstance(error, OSError) and error.errno in PATH_ERRNOS and error.filename is not None:
            message = f"{error.filename}: {error.strerror}; choose another path or change its permissions"
        else:  # libraries name the addresses that they were given, passwords included
            sys.stderr.write(without_credentials(traceback.format_exc()))
            raise SystemExit(1) from None
    else:
        return
    say.print(f"[red]error:[/red] {escape(without_credentials(message))}", soft_wrap=True)
    raise SystemExit(2)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk caused the error; libraries in other languages say so only in their message."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
            return True
        if any(words in str(error) for words in DISK_TROUBLE):
            return True
        error = error.__cause__ or error.__context__
    return False
