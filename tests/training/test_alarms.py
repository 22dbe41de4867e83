"""What the curves of preference training give away."""

import pytest

from ratchet.training.alarms import alarms

CALM = {"chosen_gain": 1.0, "margin": 1.0, "accuracy": 0.6, "longer_gains": 0.5, "longer_chosen": 0.5}
CALM |= {"entropy": 2.0}


def curve(**end: float) -> list[dict]:
    return [{"loss": 0.7, **CALM}] * 6 + [{"loss": 0.5, **CALM, "margin": 2.0, "accuracy": 0.8, **end}] * 2


def test_healthy_training_raises_none():
    assert alarms(curve()) == []


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"chosen_gain": -3.0}, "chosen answers lost 3.0 nats"),
        ({"accuracy": 0.6}, "no more pairs are ranked right"),
        ({"longer_gains": 0.9}, "learns length"),
        ({"entropy": 0.9}, "entropy fell from 2.00 to 0.90 nats"),
    ],
)
def test_each_sign_is_told(end, words):
    (told,) = alarms(curve(**end))
    assert words in told


def test_curves_too_short_or_of_other_phases_say_nothing():
    assert alarms([{"loss": 1.0}] * 8) == alarms(curve()[-3:]) == []
