"""The judge's part in the verdict: heard if it agrees with people, silent and said so if not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ratchet.config import BaseModelSource, Config, EvaluateAdapter, Judge
from ratchet.evaluation.judge.pairwise import AnswerPair
from ratchet.evaluation.judge.run import Judgement, judge_pairs
from ratchet.evaluation.scoring import Models, load
from ratchet.store import LocalStore
from support import tiny_adapter
from support.judge_server import Asked, Manner, Reply, fair, serving, verdict

Hear = Callable[..., Judgement]


def chat(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell me about the number {number}."}]


def contests(num: int, better: float) -> list[AnswerPair]:
    """Ours is the better in this share, and no longer than theirs."""
    wins = ["good" if number < better * num else "evil" for number in range(num)]
    return [
        AnswerPair(chat(number), f"{ours} {number}", f"{'evil' if ours == 'good' else 'good'} {number}", str(number))
        for number, ours in enumerate(wins)
    ]


VOTES = [replace(one, group=f"vote {one.group}", messages=chat(1000 + int(one.group))) for one in contests(40, 1.0)]


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    config = Config(
        base_model=BaseModelSource(model=str(tiny_model), dtype="float32"), evaluate_adapter=EvaluateAdapter(threads=1)
    )
    adapter = tiny_adapter.build(tmp_path_factory.mktemp("adapter") / "one", config, seed=1)
    return load(config, {"candidate": adapter})


@pytest.fixture
def heard(lake: LocalStore, models: Models) -> Hear:
    def run(manner: Manner, asked: list[AnswerPair], **judge: object) -> Judgement:
        with serving(manner) as server:
            settings = EvaluateAdapter(
                judge=Judge.model_validate({"style": "openai", "url": server.url, "model": "m", **judge}), resamples=500
            )
            return judge_pairs(
                asked,
                VOTES,
                settings=settings,
                models=models,
                store=lake,
                rng=np.random.default_rng(0),
                advance=lambda done: None,
            )

    return run


def test_a_judge_that_agrees_with_people_counts(heard: Hear) -> None:
    found = heard(fair, contests(40, 0.9))
    assert not found.comparison.is_too_few
    assert found.comparison.required
    assert found.comparison.low is not None and found.comparison.low > 0
    assert "36 won, 0 tied and 4 lost of 40" in found.comparison.why
    assert "kappa 1.00 with people" in found.comparison.why
    assert found.facts["cost"]["requests"] == 160
    assert found.flows["answer_pairs"].rows_out == 40


def test_a_judge_that_sees_the_candidate_lose_says_surely_worse(heard: Hear) -> None:
    assert heard(fair, contests(40, 0.1)).comparison.p < 0.01


def test_a_judge_that_follows_the_place_is_not_heard(heard: Hear) -> None:
    found = heard(lambda asked: verdict("first"), contests(40, 0.9))
    assert found.comparison.is_too_few
    assert found.comparison.p == 1.0
    assert found.comparison.why.startswith("the judge is not trusted: kappa 0.00")
    assert "flipped with the order in 100%" in found.comparison.why


def test_a_spent_budget_is_said_and_decides_nothing(heard: Hear) -> None:
    found = heard(fair, contests(60, 0.9), budget_tokens=160 * 110)
    assert found.comparison.is_too_few
    assert "not judged: over budget" in found.comparison.why
    assert found.flows["answer_pairs"].drops["over_budget"] > 0


def test_lies_are_counted_not_believed(heard: Hear) -> None:
    def liar(asked: Asked) -> Reply:
        return Reply('As the answer says: {"verdict": "first"}') if asked.first.endswith("7") else fair(asked)

    found = heard(liar, contests(40, 0.9))
    assert found.flows["answer_pairs"].drops == {"unreadable": 4}
    assert not found.comparison.is_too_few


def test_the_same_again_costs_nothing_and_says_the_same(heard: Hear, lake: LocalStore) -> None:
    first = heard(fair, contests(40, 0.9))
    assert len(list(lake.list("judgements"))) == 160
    again = heard(fair, contests(40, 0.9))
    assert again.comparison == first.comparison  # another port is another judge: asked anew, found the same


def test_the_base_model_judges_without_a_network_and_only_informs(lake: LocalStore, models: Models) -> None:
    settings = EvaluateAdapter(judge=Judge(style="likelihood"), resamples=200, max_tokens=2000)
    done: list[int] = []
    found = judge_pairs(
        contests(12, 0.5),
        VOTES[:12],
        settings=settings,
        models=models,
        store=lake,
        rng=np.random.default_rng(0),
        advance=done.append,
    )
    assert not found.comparison.required
    assert found.facts["is_weak"]
    assert sum(done) == 48
    assert list(lake.list("judgements")) == []


def test_a_question_too_long_for_the_base_model_is_counted(lake: LocalStore, models: Models) -> None:
    settings = EvaluateAdapter(judge=Judge(style="likelihood"), resamples=200, max_tokens=10)
    found = judge_pairs(
        contests(12, 0.5),
        VOTES[:3],
        settings=settings,
        models=models,
        store=lake,
        rng=np.random.default_rng(0),
        advance=lambda done: None,
    )
    assert found.flows["answer_pairs"].drops == {"too_long": 12}
    assert "0 judged answers in 0 groups" in found.comparison.why
