"""What a check finds, where it looks, and how all checks run: one after the other, none stopping the next."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from ratchet.config import Config
from ratchet.errors import UserError, without_credentials
from ratchet.store import Store

State = Literal["ok", "missing", "warning", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `do` says what to do about it; empty where it is as it should be."""

    check: str
    state: State
    what: str
    do: str = ""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where to look. An address that is None is not looked at, and its check says how to name it."""

    config: Config
    store: Store
    now: float
    """This machine's clock, Unix seconds."""
    role: str | None = None
    """Role whose rights on the lake are tried with the credentials at hand: a key of `ratchet.access.ROLES`."""
    cluster_url: str | None = None
    prometheus_url: str | None = None
    pool_url: str | None = None
    kubeflow_url: str | None = None
    not_writable: tuple[str, ...] = field(default=())
    """Repositories into which the token of the release must not be able to push."""


Check = Callable[[Site], Iterable[Finding]]


def examine(site: Site, checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run the checks in order. One that fails itself is a finding as well."""
    for name, check in checks:
        try:
            for finding in check(site):  # addresses come with passwords
                yield replace(finding, what=without_credentials(finding.what), do=without_credentials(finding.do))
        except UserError as error:  # what the loop would say at this point
            yield Finding(check=name, state="missing", what=_plain(error), do="do what it says")
        except Exception as error:  # libraries have many
            what = f"{type(error).__name__}: {_plain(error)}"
            yield Finding(check=name, state="missing", what=what, do="see whether it is there and lets you in")


def _plain(error: Exception) -> str:
    return without_credentials(" ".join(str(error).split()))
