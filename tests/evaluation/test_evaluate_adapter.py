"""The step on a real lake, a real MLflow and tiny adapters."""

import json
from pathlib import Path

import polars as pl
import pytest

from ratchet.base_model import revision
from ratchet.config import Config, Judge
from ratchet.errors import UserError
from ratchet.evaluation.evaluate_adapter import STEP, find_incumbent
from ratchet.manifest import Artifact, Manifest
from ratchet.registry.mlflow_store import connect
from ratchet.step import key_of, run_step
from ratchet.store import LocalStore
from support import tiny_adapter
from support.judge_server import fair, serving

WORDS = ["bread", "honey", "light", "France", "water", "salt", "comb", "air", "yeast", "flour", "nectar", "blue"]


def pair(number: int) -> dict[str, object]:
    prompt = [{"role": "user", "content": f"Tell me about {WORDS[number % 12]} ({number})."}]
    return {
        "prompt": json.dumps(prompt),
        "chosen": f"It is {WORDS[(number + 1) % 12]}.",
        "rejected": "No.",
        "weight": 1.0,
        "flip_probability": 0.1,
        "chosen_ends": True,
        "rejected_ends": True,
        "feedback_ids": [str(number)],
        "group": str(number),
    }


@pytest.fixture(scope="session")
def mlflow_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database, made once."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(Config(), LocalStore(folder))
    return folder / "mlflow.db"


@pytest.fixture
def lake(tmp_path: Path, mlflow_files: Path) -> LocalStore:
    store = LocalStore(tmp_path / "lake")
    store.create("mlflow.db", mlflow_files.read_bytes())
    return store


def inputs(lake: LocalStore, adapter: Path, num_pairs: int) -> dict[str, Manifest]:
    folder = lake.local("datasets/d")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [pair(number) for number in range(num_pairs)]
    frame = pl.DataFrame(rows, schema=pl.DataFrame([pair(0)]).schema)
    frame.write_parquet(folder / "dpo-eval.parquet")
    frame.head(0).write_parquet(folder / "dpo-train.parquet")
    pl.DataFrame(schema={"messages": pl.String}).write_parquet(folder / "sft-train.parquet")
    dataset = Artifact(uri="datasets/d", digest="d" * 64)
    return {
        "build_datasets": tiny_adapter.manifest("build_datasets", "dataset", dataset),
        "train_adapter": tiny_adapter.manifest("train_adapter", "adapter", tiny_adapter.publish(lake, adapter)),
    }


def crown(lake: LocalStore, config: Config, adapter: Path, base_revision: str | None = None) -> str:
    """Make this adapter the champion; its digest."""
    client, model = connect(config, lake), config.registry.model
    artifact = tiny_adapter.publish(lake, adapter)
    tags = {"adapter_digest": artifact.digest, "adapter_uri": artifact.uri}
    tags["base_revision"] = base_revision or revision(config.base_model)
    client.create_registered_model(model)
    version = client.create_model_version(model, lake.root, tags=tags)
    client.set_registered_model_alias(model, "champion", version.version)
    return artifact.digest


def test_against_the_base_model_when_nothing_serves(lake: LocalStore, config: Config, adapters: tuple[Path, Path]):
    made = STEP.run(config, inputs(lake, adapters[0], 30), lake)
    artifact = made.outputs["verdict"]
    written = json.loads(lake.read(artifact.uri))
    assert written["incumbent"] == "base"
    assert written["verdict"] == made.facts["verdict"]
    assert artifact.uri == f"verdicts/{artifact.digest}/verdict.json"
    assert {check["name"] for check in written["checks"]} == {
        "preference_accuracy",
        "preference_margin",
        "perplexity",
        "format",
        "safety",
        "over_refusal",
        "personal_data",
        "verbatim",
    }
    assert written["checks"][0]["n"] == 30
    assert len(made.facts["samples"]) == 12
    assert made.flows["pairs"].rows_out == 30


def test_same_work_gives_the_same_digest(lake: LocalStore, config: Config, adapters: tuple[Path, Path]):
    given = inputs(lake, adapters[0], 12)
    first, second = (STEP.run(config, given, lake).outputs["verdict"].digest for _ in range(2))
    assert first == second


def test_champion_is_the_incumbent_and_changes_the_key(
    lake: LocalStore, config: Config, adapters: tuple[Path, Path]
) -> None:
    given = inputs(lake, adapters[0], 12)
    before = key_of(STEP, config, given, lake)
    digest = crown(lake, config, adapters[1])
    assert key_of(STEP, config, given, lake) != before
    made = STEP.run(config, given, lake)
    assert made.facts["incumbent"]["digest"] == digest
    same = json.loads(lake.read(made.outputs["verdict"].uri))["checks"][0]
    against_base = STEP.run(config, inputs(lake, adapters[1], 12), lake)
    assert against_base.facts["verdict"] == "pass"
    assert against_base.facts["why"] == "the candidate is the serving adapter"
    assert same["n"] == 12


def test_a_champion_evaluated_on_the_same_set_is_read_from_the_cache(
    lake: LocalStore, config: Config, adapters: tuple[Path, Path]
) -> None:
    STEP.run(config, inputs(lake, adapters[1], 12), lake)
    assert len(list(lake.list("eval_answers"))) == 4, "likelihoods and answers, of the base model and the candidate"
    crown(lake, config, adapters[1])
    made = STEP.run(config, inputs(lake, adapters[0], 12), lake)
    assert len(list(lake.list("eval_answers"))) == 6, "only the new candidate's"
    names = {check["name"]: check for check in made.facts["checks"]}
    assert names["preference_accuracy"]["base"] is not None
    assert not names["perplexity_over_base"]["required"]
    for uri in lake.list("eval_answers"):
        (Path(lake.root) / uri).unlink()
    again = STEP.run(config, inputs(lake, adapters[0], 12), lake)
    assert again.outputs == made.outputs, "a cached result is what would be computed"


def test_a_judge_that_knows_nothing_of_users_leaves_the_verdict_open(
    lake: LocalStore, config: Config, adapters: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_JUDGE_KEY", "secret-key")
    with serving(fair) as server:
        judge = Judge(style="openai", url=server.url, model="m", prompts=12)
        settings = config.evaluate_adapter.model_copy(update={"judge": judge})
        judging = config.model_copy(update={"evaluate_adapter": settings})
        made = run_step(STEP, judging, inputs(lake, adapters[0], 30), lake).manifest
    judged = {check["name"]: check for check in made.facts["checks"]}["judged_win_rate"]
    assert (judged["verdict"], judged["required"], judged["n"]) == ("insufficient", True, 12)
    assert made.flows["calibration"].rows_out == 30
    assert made.facts["judge"]["cost"]["requests"] == len(server.asked)
    assert "secret-key" not in made.model_dump_json()


def test_adapter_that_changes_nothing_is_insufficient_not_failed(lake: LocalStore, config: Config, tmp_path: Path):
    idle = tiny_adapter.build(tmp_path / "idle", config, seed=3, strength=0.0)
    made = STEP.run(config, inputs(lake, idle, 30), lake)
    assert made.facts["verdict"] == "insufficient"
    assert {check["difference"] for check in made.facts["checks"]} == {0.0}


def test_without_held_out_pairs_the_verdict_is_insufficient(
    lake: LocalStore, config: Config, adapters: tuple[Path, Path]
) -> None:
    made = STEP.run(config, inputs(lake, adapters[0], 0), lake)
    assert made.facts["verdict"] in ("insufficient", "fail")  # a random adapter may fail on perplexity all the same
    assert made.facts["checks"][0]["why"].startswith("0 held-out pairs")
    assert made.flows["pairs"].rows_in == 0


def test_pairs_left_out_are_counted_by_reason(lake: LocalStore, config: Config, adapters: tuple[Path, Path]) -> None:
    few = config.evaluate_adapter.model_copy(update={"max_pairs": 5})
    made = STEP.run(config.model_copy(update={"evaluate_adapter": few}), inputs(lake, adapters[0], 12), lake)
    assert made.flows["pairs"].drops == {"over_max_pairs": 7}
    short = config.evaluate_adapter.model_copy(update={"max_tokens": 10})
    made = STEP.run(config.model_copy(update={"evaluate_adapter": short}), inputs(lake, adapters[0], 12), lake)
    assert made.flows["pairs"].drops == {"too_long": 12}


def test_champion_of_another_base_model_is_refused(
    lake: LocalStore, config: Config, adapters: tuple[Path, Path]
) -> None:
    crown(lake, config, adapters[1], base_revision="other")
    with pytest.raises(UserError, match="was trained on base model revision other"):
        run_step(STEP, config, inputs(lake, adapters[0], 12), lake)


def test_champion_that_ratchet_did_not_register_is_refused(lake: LocalStore, config: Config) -> None:
    client = connect(config, lake)
    client.create_registered_model("adapter")
    client.create_model_version("adapter", lake.root)
    client.set_registered_model_alias("adapter", "champion", "1")
    with pytest.raises(UserError, match=r"adapter version 1, lacks the tags \['adapter_digest'"):
        find_incumbent(config, lake)


def test_damaged_adapter_is_refused(lake: LocalStore, config: Config, adapters: tuple[Path, Path]) -> None:
    given = inputs(lake, adapters[0], 12)
    folder = lake.local(given["train_adapter"].outputs["adapter"].uri)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        STEP.run(config, given, lake)
