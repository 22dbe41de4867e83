"""What a terminal or a log shows: progress lines, step results, and errors that a person can act on."""

import errno
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from ratchet.errors import UserError
from ratchet.step import Step, StepResult

say = Console(stderr=True, highlight=False)
# How Rust, Python and SQLite put it; SQLite calls it an I/O error where a quota is what is full.
DISK_TROUBLE = ("No space left on device", "File too large", "disk is full", "disk I/O error")


def announce(step: Step, ran: StepResult | None) -> None:
    if ran is not None:
        say.print(describe(step, ran), markup=False, soft_wrap=True)


def describe(step: Step, ran: StepResult) -> str:
    """One line for people: what went through the step and what it says of itself."""
    flows = "; ".join(_flow_words(unit, flow) for unit, flow in ran.manifest.flows.items())
    outcome = ran.manifest.facts.get("outcome") or ran.manifest.facts.get("verdict") or ""
    cost = f"{ran.manifest.seconds:.1f} s" if ran.is_new else "done before, nothing to do"
    return "  ".join(part for part in (f"{step.name:<18}", flows, str(outcome), f"[{cost}]") if part)


def _flow_words(unit: str, flow: Any) -> str:
    drops = ", ".join(f"{reason} {count:,}" for reason, count in sorted(flow.drops.items()) if count)
    return f"{unit} {flow.rows_in:,} in, {flow.rows_out:,} out" + (f", dropped: {drops}" if drops else "")


def guarded(program: Callable[[], None]) -> None:
    """Run a program; a user's error becomes one message on stderr and exit code 2."""
    try:
        program()
    except UserError as error:
        say.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(2) from None
    except Exception as error:
        if not _is_disk_full(error):
            raise
        say.print(
            f"[red]error:[/red] the disk is full or failing ({escape(str(error))}). Free some space and run again; "
            "finished steps are kept.",
            soft_wrap=True,
        )
        raise SystemExit(2) from None


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind this error; libraries in other languages only say so in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in DISK_TROUBLE):
            return True
        error = error.__cause__ or error.__context__
    return False
