"""The faults that a rehearsal can inject, one per run, and the public that sends requests and votes."""

from dataclasses import dataclass

from ratchet.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The difference to a candidate as good as the champion with every service working."""

    says: str
    gain: float = 0.0
    """The candidate's approval minus the champion's."""
    errors: float = 0.0
    """Share of the candidate's requests that fail."""
    delay_s: float = 0.0
    """Added to the candidate's answers."""
    given_up: float = 0.0
    """Share of the candidate's users who do not wait for a slow answer, and so cast no vote."""
    is_gate_dead: bool = False
    gate_minutes: float = 0.0
    """Minutes after the request in which the gate answers before it is away for good; 0: it stays."""
    do_events_land: bool = True
    kills_reconciler: bool = False
    vote_factor: float = 1.0
    brigade: float = 0.0
    """Share of the voters, all of one tenant, who vote the candidate down and the champion up."""


FAULTS = {
    "none": Fault(says="a candidate as good as the champion"),
    "better": Fault(says="15 points better", gain=0.15),
    "worse": Fault(says="20 points worse", gain=-0.20),
    "slow": Fault(says="answers take 20 s, and 60% of its users give up", delay_s=20.0, given_up=0.6),
    "erroring": Fault(says="half of its requests fail", errors=0.5),
    "dead-gate": Fault(says="the gate answers nothing", is_gate_dead=True),
    "lost-gate": Fault(says="the gate is away for good 90 s after the request", gate_minutes=1.5),
    "dead-s3": Fault(says="no event reaches the lake", do_events_land=False),
    "killed-reconciler": Fault(says="20 points worse, and the reconciler dies at each write", gain=-0.20,
                               kills_reconciler=True),
    "no-votes": Fault(says="no user votes", vote_factor=0.0),
    "brigade": Fault(says="one tenant, 25% of the voters, votes it down", brigade=0.25),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Public:
    """The users."""

    requests_a_minute: float = 120.0
    vote_share: float = 0.2
    """Share of requests that are voted on."""
    approval: float = 0.75
    """Chance that a user likes an answer of the champion."""


def fault(name: str) -> Fault:
    if name not in FAULTS:
        raise UserError(f"--fault {name}: no such fault; known are {', '.join(FAULTS)}")
    return FAULTS[name]
