"""A person's yes to a release, in the ledger: where `release_adapter.approval` is `person`, no release opens without.

Every front door writes the same record: Airflow's form, Argo's suspended node, Kubeflow's arguments, `ratchet approve`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.manifest import manifest_uri
from ratchet.release.ledger import Ledger, LedgerEntry, LedgerRecord, approval
from ratchet.step import read_manifest
from ratchet.store import Store

MIN_DIGEST_CHARS = 8
REGISTERED = "registry"
MANIFESTS = "manifests/register_adapter/"
DAY_S = 24 * 3600
LASTS_S = 30 * DAY_S  # a yes that nobody used: by then the champion that it was compared with is another
OR = " or "  # between verdicts of an adapter that was judged more than once


@dataclass(frozen=True)
class RegisteredAdapter:
    """A version in the registry as the step `register_adapter` recorded it, with its offline verdict."""

    adapter: AdapterRef
    verdict: str


def read_registered(store: Store, uri: str) -> RegisteredAdapter:
    """Read the output `version` of register_adapter."""
    record = json.loads(store.read(uri))
    adapter = AdapterRef(
        name=record["name"],
        version=str(record["version"]),
        uri=f"{store.root}/{record['adapter_uri']}",
        digest=record["adapter_digest"],
    )
    return RegisteredAdapter(adapter, record["verdict"])


def find_registered(store: Store, name: str) -> RegisteredAdapter:
    """Return the registered adapter by its digest (the first 8 characters do), `NAME@vN`, or its manifest's URI.

    Raises UserError where none or more than one is meant.
    """
    if name.startswith(MANIFESTS):
        return read_registered(store, read_manifest(store, name.partition("@")[0]).outputs["version"].uri)
    known = [read_registered(store, uri) for uri in store.list(REGISTERED) if uri.endswith(".json")]
    meant = [each for each in known if _is_meant(each.adapter, name)]
    if len({each.adapter.digest for each in meant}) == 1:  # an adapter that was judged again has a record for each
        return RegisteredAdapter(meant[0].adapter, OR.join(sorted({each.verdict for each in meant})))
    there = ", ".join(sorted({f"{each.adapter} {each.adapter.digest[:12]}" for each in known})) or "none"
    raise UserError(
        f"adapter {name!r}: {'more than one' if meant else 'no'} registered adapter has it; write NAME@vN, "
        f"{MIN_DIGEST_CHARS} or more characters of the digest, or {manifest_uri('register_adapter', 'KEY')}. "
        f"Registered are: {there}"
    )


def _is_meant(adapter: AdapterRef, name: str) -> bool:
    return str(adapter) == name or (len(name) >= MIN_DIGEST_CHARS and adapter.digest.startswith(name))


def approve(ledger: Ledger, registered: RegisteredAdapter, who: str, at: float, why: str) -> LedgerRecord:
    """Record a person's yes to the next release of this adapter; the one that stands for this verdict, if one does.

    It does not overrule the verdict: that is `release_adapter.force`. Raises UserError without a name or a reason.
    """
    if not who.strip() or not why.strip():
        raise UserError(f"approve {registered.adapter}: who = {who!r}, why = {why!r}; both are needed, for the ledger")
    adapter = registered.adapter

    def decide(records: Sequence[LedgerRecord]) -> LedgerEntry | None:
        standing = approval(records, adapter.digest)
        if standing is not None and standing.verdict == registered.verdict and at - standing.at <= LASTS_S:
            return None
        return LedgerEntry(event="approved", at=at, who=who, why=why, adapter=adapter, verdict=registered.verdict)

    record = ledger.append(decide) or approval(ledger.records(), adapter.digest)
    assert record is not None
    return record


def check_approved(records: Sequence[LedgerRecord], adapter: AdapterRef, verdict: str, now: float) -> None:
    """Raise UserError unless a person has approved the adapter's next release, lately and knowing this verdict."""
    yes = approval(records, adapter.digest)
    if yes is not None and now - yes.at > LASTS_S:
        raise UserError(
            f"{adapter} ({adapter.digest[:12]}) waits for a person: {yes.who} approved it {(now - yes.at) / DAY_S:.0f} "
            f"days ago, and a yes lasts {LASTS_S / DAY_S:.0f}; `ratchet approve {adapter.digest[:12]} WHY` again"
        )
    if yes is not None and verdict not in yes.verdict.split(OR):
        raise UserError(
            f"{adapter} ({adapter.digest[:12]}) waits for a person: {yes.who} approved it when its verdict was "
            f"{yes.verdict}, and it is {verdict} now; `ratchet approve {adapter.digest[:12]} WHY` again, if you agree"
        )
    if yes is None:
        raise UserError(
            f"{adapter} ({adapter.digest[:12]}) waits for a person: release_adapter.approval = person, and the ledger "
            f"has no approval of it. Read its report (`ratchet report`), then "
            f"`ratchet approve {adapter.digest[:12]} WHY`, and run this step again"
        )
