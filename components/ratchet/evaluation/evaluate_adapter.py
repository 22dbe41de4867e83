"""Step `evaluate_adapter`: the candidate against what serves now, on held-out votes and on what must not get worse."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.base_model import revision
from ratchet.config import Config
from ratchet.digest import canonical_json, digest_bytes, digest_tree
from ratchet.errors import Conflict, UserError
from ratchet.manifest import Artifact, Flow, Made
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    from ratchet.evaluation.checks import Check
    from ratchet.evaluation.scores import Advance

PLACES = 6  # decimals kept of every number
SAMPLES = 12  # for the report; harmless prompts only


@dataclass(frozen=True)
class Incumbent:
    """What serves now: the champion's adapter, or the base model (`digest` "base", `uri` None)."""

    digest: str
    uri: str | None
    version: str


@dataclass(frozen=True)
class Judged:
    """A verdict with the numbers behind it."""

    verdict: str
    why: str
    checks: list[dict[str, Any]]
    samples: list[dict[str, str]]
    flows: dict[str, Flow]


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    candidate = inputs["train_adapter"].outputs["adapter"]
    incumbent = find_incumbent(config, store)
    if incumbent.digest == candidate.digest:
        judged = Judged("pass", "the candidate is what serves now", [], [], {})
    else:
        dataset = store.local(inputs["build_datasets"].outputs["dataset"].uri)
        judged = _judge(config, store, candidate, incumbent, dataset / "dpo-eval.parquet")
    return _publish(store, candidate.digest, incumbent, judged)


def find_incumbent(config: Config, store: Store) -> Incumbent:
    """The champion in MLflow, or the base model before there is one.

    Raises UserError if the champion belongs to another base model: its adapter means nothing on this one.
    """
    from ratchet.registry.aliases import champion
    from ratchet.registry.tracking import connect

    version = champion(connect(config, store), config.registry.model)
    if version is None:
        return Incumbent("base", None, "0")
    name = f"{config.registry.model} version {version.version}"
    if missing := {"adapter_digest", "adapter_uri", "base_revision"} - set(version.tags):
        raise UserError(
            f"the champion, {name}, lacks the tags {sorted(missing)}; move the alias to a registered adapter"
        )
    trained_on = version.tags["base_revision"]
    if trained_on != revision(config.base_model):
        raise UserError(
            f"the champion, {name}, was trained on base model revision {trained_on}, but "
            f"base_model is at {revision(config.base_model)}; go back to that base model, or remove "
            "the alias `champion` to compare with the bare base model"
        )
    return Incumbent(version.tags["adapter_digest"], version.tags["adapter_uri"], str(version.version))


def _judge(config: Config, store: Store, candidate: Artifact, incumbent: Incumbent, dpo_eval: Path) -> Judged:
    import numpy as np

    from ratchet.evaluation.checks import compare, conclude
    from ratchet.evaluation.exam import set_exam, sit
    from ratchet.evaluation.scores import load

    adapters = {"candidate": _checked(store, candidate.uri, candidate.digest)}
    if incumbent.uri is not None:
        adapters["incumbent"] = _checked(store, incumbent.uri, incumbent.digest)
    settings = config.evaluate_adapter
    rng = np.random.default_rng(config.seed)
    models = load(config, adapters)
    exam, flow = set_exam(models.tokenizer, dpo_eval, settings, rng)
    with _progress(2 * exam.amount) as advance:
        before, old = sit(
            models, None if incumbent.uri is None else "incumbent", exam, settings.max_new_tokens, advance
        )
        after, new = sit(models, "candidate", exam, settings.max_new_tokens, advance)
    checks = compare(
        after,
        before,
        pair_groups=[pair.group for pair in exam.pairs],
        replay_tokens=[len(row.answers[0]) for row in exam.replay],
        settings=settings,
        rng=rng,
    )
    verdict, why = conclude(checks)
    samples = [
        {"prompt": messages[-1]["content"], "incumbent": was, "candidate": now}
        for messages, was, now in zip([*exam.held_out, *exam.benign], old, new, strict=False)
    ]
    samples.sort(key=lambda sample: sample["incumbent"] == sample["candidate"])  # people look for the difference
    return Judged(verdict, why, [_plain(check) for check in checks], samples[:SAMPLES], {"pairs": flow})


def _plain(check: "Check") -> dict[str, Any]:
    numbers = asdict(check)
    return {name: round(value, PLACES) if isinstance(value, float) else value for name, value in numbers.items()}


@contextmanager
def _progress(total: int) -> Iterator["Advance"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("evaluate_adapter", total=total)
        yield lambda done: progress.advance(task, done)


def _checked(store: Store, uri: str, digest: str) -> Path:
    folder = store.local(uri)
    if (found := digest_tree(folder)) != digest:
        raise UserError(f"{folder} has the digest {found}, not {digest}: its files are damaged; restore or retrain it")
    return folder


def _publish(store: Store, candidate: str, incumbent: Incumbent, judged: Judged) -> Made:
    words = {"verdict": judged.verdict, "why": judged.why, "checks": judged.checks}
    data = canonical_json({"candidate": candidate, "incumbent": incumbent.digest, **words})
    digest = digest_bytes(data)
    uri = f"verdicts/{digest}/verdict.json"
    with suppress(Conflict):  # named by its content, so what is there is the same
        store.create(uri, data)
    return Made(
        outputs={"verdict": Artifact(uri=uri, digest=digest)},
        flows=judged.flows,
        facts={**words, "incumbent": asdict(incumbent), "samples": judged.samples},
    )


def _sources(config: Config, inputs: Inputs, store: Store) -> Mapping[str, str]:
    return {
        "incumbent": find_incumbent(config, store).digest,
        "base": revision(config.base_model),
        "prompts": digest_bytes(files("ratchet.evaluation").joinpath("prompts.yaml").read_bytes()),
    }


STEP = Step(
    name="evaluate_adapter",
    run=run,
    inputs=("build_datasets", "train_adapter"),
    version=2,  # 1 judged format and safety on the base model's answers
    reads=("seed", "base_model"),
    sources=_sources,
)
