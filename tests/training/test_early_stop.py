"""When preference training stops, and which of its adapters is kept."""

import pytest

from ratchet.config import EarlyStop
from ratchet.training.early_stop import START, EarlyStopLook, best, is_over


def looks(*accuracies: float, kl: float = 0.01) -> list[EarlyStopLook]:
    return [START, *(EarlyStopLook(step, accuracy, kl) for step, accuracy in enumerate(accuracies, start=1))]


STOP = EarlyStop(share=0.2, patience=2)


@pytest.mark.parametrize(
    ("accuracies", "is_at_end", "kept"),
    [
        ((0.6,), False, 1),
        ((0.6, 0.7, 0.7), False, 2),
        ((0.6, 0.7, 0.7, 0.6), True, 2),
        ((0.4,), False, 0),
        ((0.4, 0.5), True, 0),
    ],
)
def test_it_is_over_when_patience_is_and_the_best_is_kept(accuracies, is_at_end, kept):
    seen = looks(*accuracies)
    assert is_over(seen, STOP) == is_at_end
    assert best(seen, STOP).step == kept


def test_an_accurate_look_over_the_budget_ends_it_and_is_not_kept():
    budget = STOP.model_copy(update={"max_kl": 0.02})
    seen = [*looks(0.6), EarlyStopLook(2, 0.9, 0.03)]
    assert is_over(seen, budget) and best(seen, budget).step == 1
    assert not is_over(seen, STOP) and best(seen, STOP).step == 2
