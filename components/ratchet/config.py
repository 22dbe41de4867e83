"""Check `ratchet.yaml`, the settings of every step, before anything runs.

Sections are named after the steps; a profile (`local`, `demo`, `gpu`) is a ready-made file. A step's section enters
the key of its manifest, so that a changed setting redoes only the steps that depend on it. Descriptions are for users:
`ratchet config explain`, `ratchet profile` and the JSON schema print them.
"""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.errors import UserError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _read_empty_sections(cls, given: Any) -> Any:
        """Read a section without keys, which is null in YAML, as its defaults: its keys may all be commented out."""
        if not isinstance(given, dict):
            return given
        sections = {name for name, key in cls.model_fields.items() if section_of(key.annotation)}
        return {name: {} if value is None and name in sections else value for name, value in given.items()}


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a key's annotation names, or None for a key with a value of its own."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


class BaseModelSource(Section):
    """The base model under every adapter."""

    model: str = Field(
        "smollm2-135m-instruct", description="A Hugging Face id, a folder, or the name of the embedded model"
    )
    revision: str = Field(
        "main", description="Revision on the hub; pin a commit. A folder or the embedded model is known by its digest"
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Number format in which weights are loaded")


class Registry(Section):
    """MLflow, where runs are logged and adapters are registered."""

    tracking_uri: str | None = Field(None, description="MLflow's tracking URI; null: a SQLite file in the lake")
    experiment: str = Field("ratchet", description="MLflow experiment that holds the runs")
    model: str = Field("adapter", description="Registered model; its aliases are champion, previous and challenger")


class CollectTriplets(Section):
    """Join events into triplets."""

    late_days: float = Field(30, gt=0, description="Days that feedback waits for its interaction before it is dropped")


class ValidateTriplets(Section):
    """Check triplets against the data contract; quarantine the bad ones, scrub the good ones."""

    max_bad_share: float = Field(0.2, ge=0, le=1, description="Share of bad rows above which the step fails")
    max_prompt_chars: int = Field(32_000, gt=0, description="Longest prompt that passes, in characters")
    max_response_chars: int = Field(32_000, gt=0, description="Longest answer that passes, in characters")
    parity_rows: int = Field(
        10_000, ge=0, description="Rows that Great Expectations checks as well, to compare the results; 0: none"
    )
    entity_model: str | None = Field(
        None, description="spaCy model that finds names to hide; null: only patterns (addresses, numbers) are hidden"
    )

    @property
    def limits(self) -> dict[str, int]:
        """Return the values of the suite's parameters."""
        return {"max_prompt_chars": self.max_prompt_chars, "max_response_chars": self.max_response_chars}


class BuildDatasets(Section):
    """Build SFT, DPO and KTO rows, weight them, and hold some out for evaluation."""

    eval_share: float = Field(0.2, gt=0, lt=1, description="Share of split groups that is held out for evaluation")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of 3-word shingles from which two texts count as the same"
    )
    hub_conversations: int = Field(
        20, gt=0, description="A prompt in more conversations than this is only trained on, never held out"
    )
    recent_days: float = Field(
        0, ge=0, description="Days; split groups newer than this are held out by time, as `recent`; 0: none"
    )
    augment_share: float = Field(
        0, ge=0, le=0.2, description="Share of train rows that is repeated with keyboard typos in the prompt; 0: none"
    )
    max_pairs_per_prompt: int = Field(4, gt=0, description="Most pairs that opposed votes on one prompt make")
    thumb_weight: float = Field(0.7, gt=0, le=1, description="Weight of a single vote on an answer")
    opposed_weight: float = Field(
        0.8, gt=0, le=1, description="Weight of a pair of an up vote and a down vote on answers to one prompt"
    )
    preference_weight: float = Field(1.0, gt=0, le=1, description="Weight of an explicit comparison of two answers")
    correction_weight: float = Field(1.0, gt=0, le=1, description="Weight of a user's corrected answer")
    regenerated_weight: float = Field(
        0.3, gt=0, le=1, description="Weight of a pair of a regenerated answer and the answer that it replaced"
    )
    implicit_weight: float = Field(
        0.15, ge=0, le=0.15, description="Most that copies and other implicit signals add to a vote; 0: nothing"
    )
    injection_weight: float = Field(
        0.5, ge=0, le=1, description="Factor on rows whose prompt looks like an injection; 1 turns this off"
    )
    half_life_days: float = Field(
        90, gt=0, description="Days after which a vote counts half, measured from the newest vote"
    )
    max_inverse_propensity: float = Field(
        10, ge=1, description="Most by which an answer that was rarely shown is weighted up; 1 turns this off"
    )
    hold_hours: float = Field(72, ge=0, description="Hours that suspected brigading is held back; 0 turns this off")
    max_votes_per_day: int = Field(20, gt=0, description="Most votes of one user in one day; higher if users are few")
    max_rater_share: float = Field(
        0.005, gt=0, le=1, description="Largest share of all votes that one user has; higher if users are few"
    )


Packing = Literal["shared", "separate", "off"]
PairLoss = Literal["sigmoid", "sigmoid_norm", "ipo"]


class Lora(Section):
    """Plain LoRA on every linear layer except the output head."""

    r: int = Field(
        8, ge=1, le=512, description="Rank of the adapter; at most lora.maxRank of the pool that is to serve it"
    )
    alpha: int = Field(16, gt=0, description="Updates are scaled by alpha / r")
    rank_stabilized: bool = Field(False, description="rsLoRA: scale updates by alpha / sqrt(r) instead")
    dora: bool = Field(
        False, description="DoRA: also learn a magnitude for each output; only for train_adapter.target peft"
    )


class Phase(Section):
    """One phase of training: SFT, DPO or KTO."""

    epochs: float = Field(1.0, ge=0, description="Passes over the rows; 0 skips the phase")
    max_rows: int | None = Field(None, description="Train on at most this many rows, the heaviest first; null: on all")
    batch_rows: int = Field(8, gt=0, description="Rows (or pairs) in an optimiser step")
    learning_rate: float = Field(2e-4, gt=0, description="Peak of the learning rate, after which a cosine lowers it")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises")
    replay_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of max_rows that is drawn from the lighter, older rows that max_rows leaves out; 0: none",
    )

    @model_validator(mode="after")
    def _replay_has_rows_to_draw_from(self) -> Self:
        if self.replay_share and self.max_rows is None:
            raise ValueError("replay_share draws from the rows that max_rows leaves out; set max_rows, or 0")
        return self


class EarlyStop(Section):
    """Stop where watched pairs no longer gain, and keep the best adapter seen."""

    share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the conversations that is watched instead of trained on; 0 turns this off",
    )
    every_steps: int = Field(5, gt=0, description="Optimiser steps between two looks")
    patience: int = Field(3, gt=0, description="Looks without a better accuracy after which training stops")
    max_kl: float | None = Field(
        None,
        gt=0,
        description="Most drift from the reference model, in nats per token; a look above it stops training and is not "
        "kept; null: no limit",
    )


class DpoPhase(Phase):
    """Preference training on pairs, from the SFT model as reference."""

    learning_rate: float = Field(
        5e-5, gt=0, description="Peak of the learning rate; preferences need a lower one than answers"
    )
    stop: EarlyStop = EarlyStop()


class KtoPhase(Phase):
    """Preference training on single votes."""

    epochs: float = Field(0.0, ge=0, description="Passes over single votes; 0 skips the phase")
    learning_rate: float = Field(
        5e-5, gt=0, description="Peak of the learning rate; preferences need a lower one than answers"
    )


class TrainAdapter(Section):
    """Train one LoRA adapter: SFT, then DPO, then KTO."""

    target: Literal["vllm", "peft"] = Field(
        "vllm", description="Server that loads the adapter; vllm refuses settings that vLLM cannot serve"
    )
    lora: Lora = Lora()
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4: QLoRA, the base model in 4 bits while training; needs CUDA and bitsandbytes"
    )
    sft: Phase = Field(Phase(), description="Supervised fine-tuning on good answers")
    dpo: DpoPhase = DpoPhase()
    kto: KtoPhase = KtoPhase()
    loss: PairLoss = Field(
        "sigmoid",
        description="Loss of DPO's pairs. sigmoid: DPO; sigmoid_norm: DPO on log-probabilities per token; ipo: IPO",
    )
    beta: float = Field(0.1, gt=0, description="Temperature of DPO and KTO; about 5 for sigmoid_norm")
    packing: Packing = Field(
        "shared",
        description="Rows in one sequence. shared: answers share their prompt; separate: each row has its own prompt; "
        "off: rows are padded",
    )
    pass_tokens: int = Field(2048, gt=0, description="Most tokens in a forward pass; fewer take less memory")
    max_tokens: int = Field(
        512, gt=1, description="Longest row, in tokens; a longer one loses the start of its prompt, or is dropped"
    )
    checkpoint_steps: int = Field(10, gt=0, description="Optimiser steps between two checkpoints to resume from")
    threads: int = Field(2, gt=0, description="CPU threads; the result depends on it, since float sums do")
    processes: int = Field(
        1, gt=0, description="Processes, one for each GPU, which `accelerate launch` starts; the result depends on it"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Device to train on")

    @model_validator(mode="after")
    def _is_servable(self) -> Self:
        if self.lora.dora and self.target == "vllm":
            raise ValueError(
                "lora.dora: vLLM refuses adapters with DoRA's magnitudes; set target: peft, or lora.dora: false"
            )
        if self.quantize != "none" and self.device != "cuda":
            raise ValueError(f"quantize: {self.quantize} needs device: cuda; bitsandbytes' 4-bit kernels run there")
        return self


class Judge(Section):
    """A language model that compares the candidate's answers with the incumbent's. Its key: RATCHET_JUDGE_KEY."""

    style: Literal["none", "openai", "anthropic", "likelihood"] = Field(
        "none",
        description="API of the judge's endpoint; likelihood: the base model's own likelihoods, a weak judge; "
        "none: no judge",
    )
    url: str = Field(
        "", description="Endpoint: https://api.openai.com/v1, https://api.anthropic.com, or a server of your own"
    )
    model: str = Field("", description="Name of the judge model at the endpoint")
    required: bool = Field(
        True, description="Whether promotion needs the judge's pass; likelihood never decides, it only informs"
    )
    prompts: int = Field(200, gt=0, description="Most held-out prompts that are answered and judged")
    calibration_pairs: int = Field(200, gt=0, description="Most held-out votes that the judge is measured on")
    min_kappa: float = Field(
        0.3,
        ge=-1,
        lt=1,
        description="Least agreement with people (Cohen's kappa) for the judge to count; `the longer is better` has "
        "0.28 on PandaLM",
    )
    non_inferiority_margin: float = Field(
        0.05, ge=0, lt=0.5, description="How far below one half the candidate's win rate may be and still pass"
    )
    concurrency: int = Field(8, gt=0, description="Requests in flight at a time")
    tries: int = Field(6, gt=0, description="Tries of a request, with growing waits, before the step fails")
    timeout_s: float = Field(60, gt=0, description="Seconds to wait for the answer to a request")
    budget_tokens: int = Field(2_000_000, ge=0, description="Most tokens that one run uses")
    budget_usd: float = Field(10, ge=0, description="Most US dollars that one run spends, at the prices below")
    usd_per_million_input: float = Field(
        0, ge=0, description="Price of a million input tokens in US dollars; 0 for a server of your own"
    )
    usd_per_million_output: float = Field(
        0, ge=0, description="Price of a million output tokens in US dollars; 0 for a server of your own"
    )

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> Self:
        if self.style in ("openai", "anthropic") and not (self.url.startswith(("http://", "https://")) and self.model):
            raise ValueError(f"style {self.style} needs a url (http:// or https://) and a model")
        if "@" in self.url or "?" in self.url:
            raise ValueError("a url is written into manifests: no user, password or key in it; set RATCHET_JUDGE_KEY")
        return self


class EvaluateAdapter(Section):
    """The offline gate: compare the candidate with the incumbent on held-out pairs."""

    min_pairs: int = Field(20, gt=0, description="With fewer held-out pairs the verdict is insufficient")
    max_pairs: int = Field(200, gt=0, description="Most held-out pairs that are scored")
    non_inferiority_margin: float = Field(
        0.01, ge=0, description="How far below the incumbent's accuracy the candidate's may be and still pass"
    )
    max_perplexity_rise: float = Field(0.2, ge=0, description="Largest relative rise of perplexity on the replay set")
    max_slice_drop: float = Field(0.05, ge=0, description="Largest loss of accuracy in one slice of the users")
    max_new_tokens: int = Field(48, gt=0, description="Most tokens of each answer in the format and safety checks")
    judge: Judge = Judge()
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of the intervals and tests")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples")
    max_tokens: int = Field(1024, gt=0, description="Longest pair (prompt and both answers) that is scored, in tokens")
    threads: int = Field(2, gt=0, description="CPU threads; the result depends on it, since float sums do")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Device to evaluate on")


class RegisterAdapter(Section):
    """No settings of its own: `registry` says where MLflow is. Kept, since each of the seven steps has a section."""


class ReleaseAdapter(Section):
    """Release a registered adapter through Git, Argo CD and a Flagger canary."""

    git_url: str | None = Field(
        None,
        description="Repository that Argo CD follows, best one that holds the values file and nothing else; "
        "null: nothing is released",
    )
    branch: str = Field("main", description="Branch that Argo CD follows")
    values_path: str = Field(
        "environments/local/values.yaml",
        description="Path in the repository of the values file with the `adapter` block",
    )
    argocd_url: str | None = Field(
        None, description="URL of Argo CD, asked to look at Git after each commit; null: it looks every few minutes"
    )
    argocd_application: str = Field(
        "adapter-router",
        pattern="^([^/]+/)?[^/]+$",
        description="Name of the Application to refresh, or NAMESPACE/NAME where it is not in Argo CD's namespace",
    )
    cluster_url: str | None = Field(
        None, description="URL of the Kubernetes API, or of the local rehearsal cluster; needed with git_url"
    )
    gate_url: str | None = Field(None, description="URL of the gate, whose evidence is recorded with the release")
    namespace: str = Field("ratchet", description="Kubernetes namespace of the Canary")
    canary: str = Field("adapter-router", description="Name of the Canary object")
    poll_s: float = Field(1.0, gt=0, description="Seconds between two looks at the canary")
    timeout_s: float = Field(
        26 * 3600,
        gt=0,
        description="Seconds that the step waits for the canary to end, above gate.max_minutes; the reconciler goes on "
        "after that",
    )
    force: bool = Field(False, description="Release although the offline verdict is not a pass; the ledger records it")
    approval: Literal["none", "person"] = Field(
        "none",
        description="person: no release opens before `ratchet approve` or a front door's form has written a person's "
        "yes into the ledger; none: a passing verdict releases",
    )


class Duels(Section):
    """Both arms answer a share of a canary's prompts in the shadow; the judge of evaluate_adapter compares them."""

    share: float = Field(
        0.0, ge=0, le=1, description="Share of served answers whose prompts are used, with consent; 0: no duels"
    )
    max_duels: int = Field(2000, gt=0, description="Most duels of one canary")
    margin: float = Field(
        0.05, gt=0, lt=0.5, description="How far below one half the candidate's mean score may be and still pass"
    )
    budget_tokens: int = Field(5_000_000, ge=0, description="Most tokens of the judge that one canary uses")
    budget_usd: float = Field(20, ge=0, description="Most US dollars of the judge that one canary spends")


class Gate(Section):
    """The statistical gate that judges a canary on users' votes."""

    alpha: float = Field(0.05, gt=0, lt=0.5, description="Error rate of each test over the whole canary")
    non_inferiority_margin: float = Field(
        0.1, gt=0, lt=1, description="How far below the champion's approval the canary's may be and still pass"
    )
    reference_approval: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="Usual approval, at which the margin is turned into an odds ratio: who votes, and how soon, moves "
        "the approval of votes but not the odds ratio of the arms",
    )
    trusted_tenants: list[str] = Field(
        ["default"],
        description="Tenants whose votes may decide alone; a decision must stand without any single other tenant. "
        "`default` is everyone where the router has no API keys",
    )
    harm_horizon_s: float = Field(
        600,
        ge=0,
        description="Seconds from an answer to the last vote on it that can roll back; evidence waits as long",
    )
    promotion_horizon_s: float = Field(
        3600,
        ge=0,
        description="Seconds from an answer to the last vote on it that can promote, for which evidence waits",
    )
    min_votes: int = Field(4, ge=0, description="Canary votes needed for each traffic step; 0: none")
    max_minutes: float = Field(24 * 60, gt=0, description="Minutes after which an undecided canary is rolled back")
    refresh_s: float = Field(1.0, gt=0, description="Seconds between two readings of new votes")
    duels: Duels = Duels()


class Config(Section):
    """Settings of Ratchet, in ratchet.yaml. Keys that are left out have their defaults."""

    seed: int = Field(0, description="Seed of every random draw in datasets, training and evaluation")
    base_model: BaseModelSource = BaseModelSource()
    registry: Registry = Registry()
    collect_triplets: CollectTriplets = CollectTriplets()
    validate_triplets: ValidateTriplets = ValidateTriplets()
    build_datasets: BuildDatasets = BuildDatasets()
    train_adapter: TrainAdapter = TrainAdapter()
    evaluate_adapter: EvaluateAdapter = EvaluateAdapter()
    register_adapter: RegisterAdapter = RegisterAdapter()
    release_adapter: ReleaseAdapter = ReleaseAdapter()
    gate: Gate = Gate()

    @model_validator(mode="after")
    def _release_outlasts_the_gate(self) -> Self:
        release, gate = self.release_adapter, self.gate
        if release.git_url is not None and release.timeout_s <= gate.max_minutes * 60:
            raise ValueError(
                f"release_adapter.timeout_s = {release.timeout_s:g} ends the step before gate.max_minutes = "
                f"{gate.max_minutes:g} ends an undecided canary: set it above {gate.max_minutes * 60:g}, with an hour "
                "for Argo CD's sync and for pods that become ready"
            )
        return self


def _all_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, key in section.model_fields.items():
        yield prefix + name
        if inner := section_of(key.annotation):
            yield from _all_keys(inner, f"{prefix}{name}.")


KEYS = tuple(_all_keys(Config))
"""Every key and section by its dotted name, in the order of the file."""

RENAMED = {
    "evaluate_adapter.tolerance": "evaluate_adapter.non_inferiority_margin",
    "evaluate_adapter.judge.tolerance": "evaluate_adapter.judge.non_inferiority_margin",
    "gate.margin": "gate.non_inferiority_margin",
}
"""Old names of keys, and the names that replaced them."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that is given twice is a fault: the first of two sections would be lost without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_config(path: Path) -> Config:
    """Read and check a ratchet.yaml. Raises UserError with every fault, its place, and the nearest known key."""
    return check_config(path, read_settings(path))


def read_settings(path: Path) -> Any:
    """Return the YAML document as it is written, unchecked; {} for an empty file."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys) or {}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; `ratchet profile local > {path}` writes one"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def check_config(path: Path, given: Any) -> Config:
    """Return the settings with their defaults; errors name `path`. Raises UserError as `load_config` does."""
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise UserError(f"{path}:\n{faults}") from None


def unknown_key(key: str) -> str:
    """Say that a dotted key does not exist, and which one was meant: renamed, misspelt, or in another section."""
    if key in RENAMED:
        return f"{key}: renamed to {RENAMED[key]}"
    parts = key.split(".")
    depth = next(n for n in range(len(parts)) if ".".join(parts[: n + 1]) not in KEYS)  # of the first unknown part
    section, name, rest = parts[:depth], parts[depth], parts[depth + 1 :]
    known = [path.rpartition(".")[2] for path in KEYS if path.split(".")[:-1] == section]
    corrected = [".".join([*section, near]) for near in difflib.get_close_matches(name, known, n=1, cutoff=0.5)]
    meant = [whole if (whole := ".".join([path, *rest])) in KEYS else path for path in corrected]
    meant = meant or [path for path in KEYS if path.endswith(f".{name}")]
    if meant:
        return f"{key}: no such key; did you mean {' or '.join(map(repr, meant))}?"
    return f"{key}: no such key; there are {', '.join(known)}" if known else f"{key}: no such key"


def _explain(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return unknown_key(place)
    if fault["type"] == "value_error":  # from a check over several keys: its input is the whole section
        return f"{place}: {fault['ctx']['error']}".removeprefix(": ")
    message = f"{place or 'the file'} = {fault['input']!r}: {fault['msg']}"
    if fault["type"] == "literal_error":
        choices = re.findall(r"'([^']+)'", fault["ctx"]["expected"])
        if nearest := difflib.get_close_matches(str(fault["input"]), choices, n=1):
            message += f"; did you mean {nearest[0]!r}?"
    return message
