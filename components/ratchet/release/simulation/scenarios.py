"""The canaries that are simulated: equal and worse candidates, crowds that do not vote evenly, and attackers."""

from dataclasses import dataclass, replace
from typing import Any, Literal

DAY_H = 24.0  # a run
MINUTE_H = 1 / 60  # "in the first minute"
Question = Literal["rollback", "promotion"]
Seeks = Literal["canary", "primary"] | None


@dataclass(frozen=True, kw_only=True)
class Attackers:
    """Accounts that vote the candidate down and the baseline up (`for_candidate`: the other way round)."""

    num: int
    until_h: float = DAY_H
    """They vote between the run's start and this hour."""
    seeks: Seeks = None
    """The arm on whose answers they vote, which they can see; None: the one that the route gives them."""
    for_candidate: bool = False
    is_tenant: bool = False
    """Whether they are one tenant's; otherwise they are spread over the public."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of canary over a day. Approval is a chance; hours are from the run's start."""

    name: str
    question: Question = "rollback"
    """Which decision is looked for."""
    is_error: bool = True
    """Whether that decision would be wrong."""
    votes: int | None = None
    """Of honest users; None: as the caller says."""
    weight: int | None = None
    """Percent of traffic to the candidate; None: as the caller says."""
    final_weight: int | None = None
    """From half of the run on."""
    approval: tuple[float, float] = (0.80, 0.80)
    """Of the baseline, at the start and at the end, with a straight line between."""
    swing: float = 0.0
    """Amplitude of a sine over approval, with a phase and a period of each run's own."""
    shocks: int = 0
    """Periods of the run, each of which has one end of `approval` or the other, at random."""
    drop: float = 0.0
    """Of the candidate's approval below the baseline's."""
    log_ratio: float = 0.0
    """Log odds ratio of the candidate's approval to the baseline's, besides `drop`."""
    bursts: int = 0
    """Moments in which all votes are cast; 0: evenly."""
    canary_eagerness: float = 1.0
    """How often the candidate's users vote, relative to the baseline's."""
    canary_silent_h: float = 0.0
    """Until then nobody votes on the candidate."""
    weight_zero_h: float = 0.0
    """Until then the candidate has no traffic."""
    down_delay_h: float = 0.0
    """Mean of an exponential delay of down votes; up votes come at once."""
    canary_delay_h: float = 0.0
    """Delay of all votes on the candidate."""
    unhappy_eagerness: float = 1.0
    """How often the unhappy vote, relative to the happy; at most 1 of either."""
    attackers: Attackers | None = None
    tenants: int = 0
    """Honest tenants, of equal size; 0: a public without tenants."""
    is_compared: bool = False
    """Whether other methods decide on the same votes."""


FALLING, RISING = (0.95, 0.65), (0.65, 0.95)
FALLING_LESS = (0.85, 0.75)
PUBLIC = 2000  # votes of honest users beside attackers


def scenarios(margin_log_ratio: float) -> tuple[Scenario, ...]:
    """Return every scenario; `margin_log_ratio`: log odds ratio of the gate's margin."""
    return (*_equal(), *_attacked(), *_tenants(), *_worse(), *_promotions(margin_log_ratio))


def _equal() -> list[Scenario]:
    def equal(name: str, **changes: Any) -> Scenario:
        return Scenario(name=f"equal arms, {name}", **changes)

    return [
        Scenario(name="equal arms", is_compared=True),
        equal("10,000 votes", votes=10_000),
        equal("drift of 15 points", approval=(0.75, 0.75), swing=0.15, is_compared=True),
        equal("weight 40%, approval 0.65 to 0.95", weight=40, approval=RISING),
        equal("weight 20% then 50%, approval 0.95 to 0.65", final_weight=50, approval=FALLING),
        equal("canary silent for the first quarter, approval 0.95 to 0.65", canary_silent_h=6, approval=FALLING),
        equal("canary silent for the first quarter, approval 0.85 to 0.75", canary_silent_h=6, approval=FALLING_LESS),
        equal("canary voted on half as often, approval 0.95 to 0.65", canary_eagerness=0.5, approval=FALLING),
        equal("canary voted on half as often, approval 0.85 to 0.75", canary_eagerness=0.5, approval=FALLING_LESS),
        equal("canary voted on a quarter less often, approval 0.95 to 0.65", canary_eagerness=0.75, approval=FALLING),
        equal("an hour at weight 0 first, approval 0.95 to 0.65", weight_zero_h=1, approval=FALLING),
        equal("six hours at weight 0 first, approval 0.95 to 0.65", weight_zero_h=6, approval=FALLING),
        equal("six hours at weight 0 first, approval 0.85 to 0.75", weight_zero_h=6, approval=FALLING_LESS),
        equal("hourly shocks between 0.60 and 0.95", shocks=24, approval=(0.60, 0.95)),
        equal("shocks between 0.50 and 0.95 in 40 bursts", shocks=40, bursts=40, approval=(0.50, 0.95)),
        equal("down-votes four hours late, approval 0.95 to 0.65", down_delay_h=4, approval=FALLING),
        equal("canary's votes five minutes late, approval 0.95 to 0.65", canary_delay_h=1 / 12, approval=FALLING),
        equal("the unhappy vote ten times as often, approval 0.95 to 0.65", unhappy_eagerness=10, approval=FALLING),
    ]


def _attacked() -> list[Scenario]:
    def brigade(name: str, num: int, until_h: float = DAY_H, seeks: Seeks = None, drop: float = 0.0) -> Scenario:
        attackers = Attackers(num=num, until_h=until_h, seeks=seeks)
        return Scenario(name=name, votes=PUBLIC, attackers=attackers, drop=drop)

    worse = Scenario(
        name="15 points worse, 12 accounts that see the arm, first minute, weight 50%",
        question="promotion", votes=PUBLIC, weight=50, drop=0.15,
        attackers=Attackers(num=12, until_h=MINUTE_H, seeks="canary", for_candidate=True),
    )  # fmt: skip
    return [
        replace(brigade("10 accounts, arm by the route, spread", 10), is_compared=True),
        brigade("10 accounts, arm by the route, first minute", 10, MINUTE_H),
        brigade("10 accounts that see the arm, spread", 10, seeks="canary"),
        brigade("10 accounts that see the arm, first minute", 10, MINUTE_H, "canary"),
        brigade("20 accounts that see the arm, first minute", 20, MINUTE_H, "canary"),
        brigade("100 accounts, arm by the route, spread", 100),
        brigade("200 accounts, arm by the route, spread", 200),
        brigade("100 accounts, up on the champion alone, first minute", 100, MINUTE_H, "primary"),
        brigade("200 accounts, up on the champion alone, first minute", 200, MINUTE_H, "primary"),
        brigade("15 points better, 25 accounts that see the arm, first minute", 25, MINUTE_H, "canary", -0.15),
        worse,
    ]


def _tenants() -> list[Scenario]:
    """One hostile tenant beside four honest ones."""

    def hostile(name: str, num: int, until_h: float = DAY_H, seeks: Seeks = None) -> Scenario:
        attackers = Attackers(num=num, until_h=until_h, seeks=seeks, is_tenant=True)
        return Scenario(name=name, votes=PUBLIC, tenants=4, attackers=attackers)

    friend = Scenario(
        name="15 points worse, one tenant's 20 votes for the candidate first",
        question="promotion", votes=PUBLIC, tenants=4, drop=0.15,
        attackers=Attackers(num=20, until_h=MINUTE_H, for_candidate=True, is_tenant=True),
    )  # fmt: skip
    return [
        hostile("one tenant votes first, 25 votes", 25, MINUTE_H),
        hostile("one tenant votes on the canary alone, 30 votes", 30, seeks="canary"),
        hostile("one tenant has half of the votes", PUBLIC),
        replace(friend, name="15 points worse, one tenant's 12 votes first, weight 50%", weight=50),
        friend,
    ]


def _worse() -> list[Scenario]:
    return [
        Scenario(name=f"{100 * drop:.0f} points worse", drop=drop, is_error=False, is_compared=True)
        for drop in (0.03, 0.05, 0.10, 0.20)
    ]


def _promotions(log_ratio: float) -> list[Scenario]:
    def worse(name: str, weight: int = 50, **changes: Any) -> Scenario:
        name = f"worse by the margin, {name}"
        return Scenario(name=name, question="promotion", votes=PUBLIC, weight=weight, log_ratio=log_ratio, **changes)

    def power(name: str, drop: float, weight: int) -> Scenario:
        return Scenario(name=name, question="promotion", is_error=False, votes=PUBLIC, weight=weight, drop=drop)

    return [
        worse("weight 50%"),
        worse("weight 20%", 20),
        worse("approval 0.95", approval=(0.95, 0.95)),
        worse("approval 0.60", approval=(0.60, 0.60)),
        worse("drift of 15 points", approval=(0.75, 0.75), swing=0.15),
        worse("canary silent for the first quarter", canary_silent_h=6, approval=FALLING),
        worse("canary voted on half as often", canary_eagerness=0.5, approval=FALLING),
        worse("the unhappy vote ten times as often", unhappy_eagerness=10),
        replace(worse("down-votes half an hour late, 10,000 votes", down_delay_h=0.5), votes=10_000),
        worse("down-votes an hour late", down_delay_h=1),
        worse("down-votes an hour late, weight 20%", 20, down_delay_h=1),
        worse("down-votes four hours late", down_delay_h=4),
        worse("down-votes a third of the run late", down_delay_h=8),
        replace(worse("and five points more, down-votes four hours late", down_delay_h=4), drop=0.05),
        replace(worse("and ten points more, down-votes four hours late", down_delay_h=4), drop=0.10),
        power("equal arms, weight 50%", 0.0, 50),
        power("equal arms, weight 20%", 0.0, 20),
        power("10 points better, weight 50%", -0.10, 50),
    ]
