"""Step `evaluate_adapter`: compare the candidate adapter with the incumbent, and publish a verdict.

Compared are held-out votes, and what must not get worse: perplexity, format, safety, privacy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.adapter_ref import BASE_DIGEST
from ratchet.base_model import revision
from ratchet.config import Config, EvaluateAdapter
from ratchet.digest import canonical_json, digest_bytes, digest_tree
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Flow, StepOutput
from ratchet.needs import ENVIRONMENT_SECRET, HOUR_S, HUB, JUDGE, MLFLOW, S3, Needs
from ratchet.progress import show_progress
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    import numpy as np

    from ratchet.evaluation.checks import Check
    from ratchet.evaluation.eval_set import EvalSet
    from ratchet.evaluation.judge.run import Judgement
    from ratchet.evaluation.scoring import Answers, Models
    from ratchet.evaluation.slices import SliceComparison

DECIMALS = 6  # decimals kept of every number
SAMPLES = 12  # for the report; harmless prompts only


@dataclass(frozen=True)
class Incumbent:
    """The serving adapter: the champion's, or the base model (`digest` BASE_DIGEST, `uri` None)."""

    digest: str
    uri: str | None
    version: str


@dataclass(frozen=True)
class Findings:
    """A verdict with its evidence: checks, slices, sample answers, the judge's facts."""

    verdict: str
    why: str
    checks: list[dict[str, Any]] = field(default_factory=list)
    slices: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    flows: dict[str, Flow] = field(default_factory=dict)
    judge: dict[str, Any] | None = None


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    """Compare the candidate with the incumbent and publish the verdict; the incumbent itself passes unmeasured."""
    candidate = inputs["train_adapter"].outputs["adapter"]
    incumbent = find_incumbent(config, store)
    if incumbent.digest == candidate.digest:
        findings = Findings("pass", "the candidate is the serving adapter")
    else:
        findings = _compare(config, store, candidate, incumbent, inputs["build_datasets"].outputs["dataset"])
    return _publish(store, candidate.digest, incumbent, findings)


def find_incumbent(config: Config, store: Store) -> Incumbent:
    """Return the champion in MLflow, or the base model if there is none.

    Raises UserError if the champion belongs to another base model: its adapter is meaningless on this one.
    """
    from ratchet.registry.aliases import champion
    from ratchet.registry.mlflow_store import connect

    version = champion(connect(config, store), config.registry.model)
    if version is None:
        return Incumbent(BASE_DIGEST, None, "0")
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


def _compare(config: Config, store: Store, candidate: Artifact, incumbent: Incumbent, built: Artifact) -> Findings:
    import numpy as np

    from ratchet.evaluation.checks import compare, conclude
    from ratchet.evaluation.eval_set import build_eval_set, likelihoods, score, seen_in_training
    from ratchet.evaluation.scoring import load

    settings, dataset = config.evaluate_adapter, store.local(built.uri)
    rng = np.random.default_rng(config.seed)
    adapters = {"candidate": _verified_folder(store, candidate.uri, candidate.digest)}
    if incumbent.uri is not None:
        adapters["incumbent"] = _verified_folder(store, incumbent.uri, incumbent.digest)
    models = load(config, adapters)
    eval_set, flow = build_eval_set(models.tokenizer, dataset / "dpo-eval.parquet", settings, rng)
    bare, old, new = _answer_all(config, store, models, eval_set, candidate, incumbent)
    judgement = _ask_judge(settings, store, models, eval_set, old, new, rng)
    known = seen_in_training(dataset, [*old.answers, *new.answers])
    checks, slices = compare(
        score(eval_set, new, known),
        score(eval_set, old, known),
        eval_set.layout,
        settings=settings,
        rng=rng,
        base=None if incumbent.uri is None else likelihoods(eval_set, bare),
        judged=[judgement.comparison] if judgement else [],
    )
    verdict, why = conclude(checks)
    return Findings(
        verdict,
        why,
        checks=[_plain(check) for check in checks],
        slices=[_plain(comparison) for comparison in slices],
        samples=_samples(eval_set, old, new),
        flows={"pairs": flow, **(judgement.flows if judgement else {})},
        judge=judgement.facts if judgement else None,
    )


def _answer_all(
    config: Config, store: Store, models: "Models", eval_set: "EvalSet", candidate: Artifact, incumbent: Incumbent
) -> tuple["Answers", "Answers", "Answers"]:
    """Return the answers of base model, incumbent and candidate; without a champion the first two are the same."""
    from ratchet.evaluation.answer_cache import AnswerCache

    is_first = incumbent.uri is None
    with show_progress("evaluate_adapter", (2 if is_first else 3) * eval_set.amount) as progress:
        cache = AnswerCache(
            store, models, eval_set, config.evaluate_adapter.max_new_tokens, _conditions(config), progress.advance
        )
        bare = cache.answers_of(None, BASE_DIGEST, with_answers=is_first)
        old = bare if is_first else cache.answers_of("incumbent", incumbent.digest)
        return bare, old, cache.answers_of("candidate", candidate.digest)


def _ask_judge(
    settings: EvaluateAdapter,
    store: Store,
    models: "Models",
    eval_set: "EvalSet",
    old: "Answers",
    new: "Answers",
    rng: "np.random.Generator",
) -> "Judgement | None":
    if settings.judge.style == "none":
        return None
    from ratchet.evaluation.judge.run import answer_pairs, judge_pairs, vote_pairs

    asked, known = answer_pairs(eval_set.held_out, new.answers, old.answers), vote_pairs(eval_set.pairs)
    with show_progress("judge", 2 * (len(asked) + len(known))) as progress:
        return judge_pairs(
            asked, known, settings=settings, models=models, store=store, rng=rng, advance=progress.advance
        )


def _conditions(config: Config) -> dict[str, Any]:
    """Return what a model's answers depend on besides the model and the questions."""
    settings = config.evaluate_adapter
    return {
        "base": revision(config.base_model),
        "dtype": config.base_model.dtype,
        "device": settings.device,
        "threads": settings.threads,
    }


def _samples(eval_set: "EvalSet", old: "Answers", new: "Answers") -> list[dict[str, str]]:
    harmless = eval_set.asked[: len(eval_set.held_out) + len(eval_set.benign)]
    samples = [
        {"prompt": messages[-1]["content"], "incumbent": was, "candidate": now}
        for messages, was, now in zip(harmless, old.answers, new.answers, strict=False)
    ]
    samples.sort(
        key=lambda sample: sample["incumbent"] == sample["candidate"]
    )  # different answers first: they are what people look for
    return samples[:SAMPLES]


def _plain(check: "Check | SliceComparison") -> dict[str, Any]:
    numbers = asdict(check)
    return {name: round(value, DECIMALS) if isinstance(value, float) else value for name, value in numbers.items()}


def _verified_folder(store: Store, uri: str, digest: str) -> Path:
    folder = store.local(uri)
    if (actual := digest_tree(folder)) != digest:
        raise UserError(f"{folder} has the digest {actual}, not {digest}: its files are damaged; restore or retrain it")
    return folder


def _publish(store: Store, candidate: str, incumbent: Incumbent, findings: Findings) -> StepOutput:
    verdict = {
        "verdict": findings.verdict,
        "why": findings.why,
        "checks": findings.checks,
        "slices": findings.slices,
    }
    data = canonical_json({"candidate": candidate, "incumbent": incumbent.digest, **verdict})
    digest = digest_bytes(data)
    uri = f"verdicts/{digest}/verdict.json"
    store.create_if_absent(uri, data)
    return StepOutput(
        outputs={"verdict": Artifact(uri=uri, digest=digest)},
        flows=findings.flows,
        facts={**verdict, "incumbent": asdict(incumbent), "samples": findings.samples, "judge": findings.judge},
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
    # 1 checked format and safety on the base model's answers; 2 had narrower intervals and no slices; 3 read every
    # prompt whole, which rounded answers otherwise; 4 scored rows in padded lines, which rounded sums otherwise.
    version=5,
    reads=("seed", "base_model"),
    sources=_sources,
    needs=Needs(
        cpu="8",
        memory="64Gi",
        ephemeral_storage="60Gi",  # as for training
        gpus=1,
        shared_memory="8Gi",
        cpu_only=("2", "16Gi"),
        timeout_s=12 * HOUR_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW, *HUB, *JUDGE)},
    ),
)
