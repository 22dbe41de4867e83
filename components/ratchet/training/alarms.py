"""Detect signs of reward over-optimisation in a phase's curves. They warn; the offline gate and the canary decide.

Preference training can lower its loss while the model gets worse (arXiv:2406.02900); each sign shows one way.
"""

from collections.abc import Sequence
from typing import Any

QUARTERS = 4  # the last quarter of the steps is compared with the first
ENTROPY_LEFT = 0.5  # share of the first quarter's; half the entropy is the square root of the number of choices
LENGTH_DRIFT = 0.2  # how much more often the longer answer may gain than it is the chosen one


def alarms(history: Sequence[dict[str, Any]]) -> list[str]:
    """Return one sentence for each sign in a phase's curve; the names are those of `dpo_objective`'s `watch`."""
    curve = [entry for entry in history if "chosen_gain" in entry]
    if len(curve) < QUARTERS:
        return []
    length = len(curve) // QUARTERS
    names = ("chosen_gain", "margin", "accuracy", "longer_gains", "longer_chosen", "entropy")
    first, last = (
        {name: sum(entry[name] for entry in part) / length for name in names}
        for part in (curve[:length], curve[-length:])
    )
    signs = []
    if last["chosen_gain"] < 0:
        signs.append(f"chosen answers lost {-last['chosen_gain']:.1f} nats against the reference")
    if last["margin"] > first["margin"] and last["accuracy"] <= first["accuracy"]:
        signs.append(
            f"the margin rose from {first['margin']:.2f} to {last['margin']:.2f} nats, but no more pairs are ranked "
            f"right ({first['accuracy']:.0%} to {last['accuracy']:.0%})"
        )
    if last["entropy"] < ENTROPY_LEFT * first["entropy"]:
        signs.append(
            f"the next token's entropy fell from {first['entropy']:.2f} to {last['entropy']:.2f} nats: answers become "
            "alike"
        )
    if last["longer_gains"] > last["longer_chosen"] + LENGTH_DRIFT:
        signs.append(
            f"the longer answer gained in {last['longer_gains']:.0%} of the pairs, but was chosen in "
            f"{last['longer_chosen']:.0%}: the model learns length"
        )
    return signs
