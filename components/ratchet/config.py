"""One `ratchet.yaml`: the settings of every step, checked before anything runs.

Sections are named after the steps; a profile (`local`, `gpu`) is a whole file. A section enters the key of its
step's manifest, so changing a setting redoes just the work that depends on it.
"""

import difflib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.errors import UserError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelSource(Section):
    """The base model under every adapter."""

    model: str = Field("smollm2-135m-instruct", description="a Hugging Face id, a folder, or the embedded model's name")
    revision: str = Field("main", description="pinned revision; for a folder or the embedded model its digest is used")
    dtype: Literal["float32", "bfloat16"] = "bfloat16"


class Registry(Section):
    """MLflow: where runs are logged and adapters registered."""

    tracking_uri: str | None = Field(None, description="default: a SQLite file in the lake")
    experiment: str = "ratchet"
    model: str = Field("adapter", description="registered model name; holds the aliases champion, previous, challenger")


class CollectTriplets(Section):
    late_days: float = Field(
        30, gt=0, description="how long feedback may wait for its interaction before it is dropped"
    )


class ValidateTriplets(Section):
    max_bad_share: float = Field(0.2, ge=0, le=1, description="above this share of bad rows the run fails")
    max_prompt_chars: int = Field(32_000, gt=0)
    max_response_chars: int = Field(32_000, gt=0)
    parity_rows: int = Field(10_000, ge=0, description="so many rows are judged by Great Expectations as well")
    entity_model: str | None = Field(None, description="spaCy model that also hides names; without, only patterns are")

    @property
    def limits(self) -> dict[str, int]:
        """What fills the parameters of the suite."""
        return {"max_prompt_chars": self.max_prompt_chars, "max_response_chars": self.max_response_chars}


class BuildDatasets(Section):
    eval_share: float = Field(0.2, gt=0, lt=1, description="share of split groups held out")
    near_duplicate: float = Field(0.8, gt=0, le=1, description="Jaccard of 3-word shingles at which texts are one")
    hub_conversations: int = Field(20, gt=0, description="a prompt in more conversations than this is only trained on")
    recent_days: float = Field(0, ge=0, description="groups this new are held out by time, as `recent`; 0: none")
    augment_share: float = Field(
        0, ge=0, le=0.2, description="share of train rows repeated with keyboard typos in the prompt"
    )
    max_pairs_per_prompt: int = Field(4, gt=0)
    thumb_weight: float = Field(0.7, gt=0, le=1, description="a lone vote")
    opposed_weight: float = Field(0.8, gt=0, le=1, description="up and down votes on answers to one prompt")
    preference_weight: float = Field(1.0, gt=0, le=1)
    correction_weight: float = Field(1.0, gt=0, le=1)
    regenerated_weight: float = Field(0.3, gt=0, le=1, description="an answer taken after another was asked for again")
    implicit_weight: float = Field(0.15, ge=0, le=0.15, description="the most that copies and the like add to a vote")
    injection_weight: float = Field(0.5, ge=0, le=1, description="factor where the prompt tries to give orders")
    half_life_days: float = Field(90, gt=0, description="a vote this old counts half, against the newest vote")
    max_inverse_propensity: float = Field(10, ge=1, description="the most that an answer shown rarely is weighted up")
    hold_hours: float = Field(72, ge=0, description="hours that suspected brigading is held back; 0 turns this off")
    max_votes_per_day: int = Field(20, gt=0, description="of one subject, unless raters are few")
    max_rater_share: float = Field(0.005, gt=0, le=1, description="of all votes by one subject, unless raters are few")


Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
Packing = Literal["shared", "separate", "off"]
PairLoss = Literal["sigmoid", "sigmoid_norm", "ipo"]


class Lora(Section):
    """Plain LoRA on every linear layer but the output head."""

    r: Rank = Field(8, description="rank; vLLM serves these and no others")
    alpha: int = Field(16, gt=0, description="updates are scaled by alpha / r")
    rank_stabilized: bool = Field(False, description="rsLoRA: updates are scaled by alpha / sqrt(r) instead")
    dora: bool = Field(False, description="DoRA: a learned magnitude for each output besides; for target peft only")


class Phase(Section):
    """One pass of training: SFT, DPO or KTO."""

    epochs: float = Field(1.0, ge=0, description="passes over the rows; 0 skips the phase")
    max_rows: int | None = Field(None, description="train on at most so many rows, the heaviest first")
    batch_rows: int = Field(8, gt=0, description="rows (or pairs) an optimiser step")
    learning_rate: float = Field(2e-4, gt=0, description="peak; a cosine takes it down from there")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    replay_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of max_rows that is drawn from the lighter, older rows; they weigh the mean",
    )

    @model_validator(mode="after")
    def _replay_has_rows_to_draw_from(self) -> Self:
        if self.replay_share and self.max_rows is None:
            raise ValueError("replay_share draws from the rows that max_rows leaves out; set max_rows, or 0")
        return self


class EarlyStop(Section):
    """Stop where held-out pairs no longer gain, and keep the best adapter seen."""

    share: float = Field(0.0, ge=0, lt=1, description="share of the conversations that is watched, not trained on")
    every_steps: int = Field(5, gt=0, description="optimiser steps between looks")
    patience: int = Field(3, gt=0, description="looks without a better accuracy before it stops")
    max_kl: float | None = Field(
        None, gt=0, description="nats a token of drift from the reference; a look above it stops and is not kept"
    )


class DpoPhase(Phase):
    learning_rate: float = Field(5e-5, gt=0, description="peak; preferences want a gentler rate than answers")
    stop: EarlyStop = EarlyStop()


class KtoPhase(Phase):
    epochs: float = Field(0.0, ge=0, description="passes over lone votes; 0 leaves them out")
    learning_rate: float = Field(5e-5, gt=0, description="peak; preferences want a gentler rate than answers")


class TrainAdapter(Section):
    target: Literal["vllm", "peft"] = Field(
        "vllm", description="who is to load the adapter; what vLLM would not serve is refused unless it is PEFT alone"
    )
    lora: Lora = Lora()
    quantize: Literal["none", "nf4"] = Field(
        "none", description="nf4: QLoRA, the base model in 4 bits while training; needs CUDA and bitsandbytes"
    )
    sft: Phase = Phase()
    dpo: DpoPhase = DpoPhase()
    kto: KtoPhase = KtoPhase()
    loss: PairLoss = Field("sigmoid", description="of pairs: DPO, DPO on log-probabilities per token, or IPO")
    beta: float = Field(0.1, gt=0, description="temperature of DPO and KTO; about 5 where the loss is per token")
    packing: Packing = Field(
        "shared", description="rows of a pass in one line, prompts shared by their answers or not; off pads instead"
    )
    pass_tokens: int = Field(2048, gt=0, description="most tokens a forward pass; fewer take less memory")
    max_tokens: int = Field(512, gt=1, description="longer rows are cut on the left of the prompt, or dropped")
    checkpoint_steps: int = Field(10, gt=0, description="optimiser steps between resumable checkpoints")
    threads: int = Field(2, gt=0, description="CPU threads; part of the result, since float sums depend on it")
    processes: int = Field(1, gt=0, description="one a GPU, started by `accelerate launch`; part of the result too")
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _is_servable(self) -> Self:
        if self.lora.dora and self.target == "vllm":
            raise ValueError(
                "lora.dora: vLLM does not serve DoRA's magnitudes and would answer as something else; "
                "set target: peft, or lora.dora: false"
            )
        if self.quantize != "none" and self.device != "cuda":
            raise ValueError(f"quantize: {self.quantize} needs device: cuda; bitsandbytes' 4-bit kernels run there")
        return self


class Judge(Section):
    """A language model that compares the candidate's answers with the incumbent's. Its key: RATCHET_JUDGE_KEY."""

    style: Literal["none", "openai", "anthropic", "likelihood"] = Field(
        "none", description="none; an endpoint's style; or the base model's own likelihoods, a weak judge"
    )
    url: str = Field("", description="https://api.openai.com/v1, https://api.anthropic.com, or a server of your own")
    model: str = ""
    required: bool = Field(True, description="whether promotion needs its pass; the weak judge only ever informs")
    prompts: int = Field(200, gt=0, description="held-out prompts that are answered and judged, at most")
    calibration_pairs: int = Field(200, gt=0, description="held-out votes that the judge is measured on, at most")
    min_kappa: float = Field(
        0.3,
        ge=-1,
        lt=1,
        description="least agreement with people to be heard; `the longer is better` has 0.28 on PandaLM",
    )
    non_inferiority_margin: float = Field(0.05, ge=0, lt=0.5, description="how far below one half the win rate may lie")
    concurrency: int = Field(8, gt=0, description="requests at a time")
    tries: int = Field(6, gt=0, description="of each request, with growing waits, before the run gives up")
    timeout_s: float = Field(60, gt=0, description="of each request")
    budget_tokens: int = Field(2_000_000, ge=0, description="most tokens that one run may use")
    budget_usd: float = Field(10, ge=0, description="most money that one run may spend, at the prices below")
    usd_per_million_input: float = Field(0, ge=0, description="0 for a server of your own")
    usd_per_million_output: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> Self:
        if self.style in ("openai", "anthropic") and not (self.url.startswith(("http://", "https://")) and self.model):
            raise ValueError(f"style {self.style} needs a url (http:// or https://) and a model")
        if "@" in self.url or "?" in self.url:
            raise ValueError("a url is written into manifests: no user, password or key in it; set RATCHET_JUDGE_KEY")
        return self


class EvaluateAdapter(Section):
    min_pairs: int = Field(20, gt=0, description="with fewer held-out pairs the verdict is insufficient")
    max_pairs: int = Field(200, gt=0)
    non_inferiority_margin: float = Field(
        0.01, ge=0, description="how much lower than the incumbent's accuracy still passes"
    )
    max_perplexity_rise: float = Field(0.2, ge=0, description="largest relative rise on the replay set")
    max_slice_drop: float = Field(0.05, ge=0, description="largest loss of accuracy in one slice of the users")
    max_new_tokens: int = Field(48, gt=0, description="for the format and safety generations")
    judge: Judge = Judge()
    confidence: float = Field(0.95, gt=0.5, lt=1)
    resamples: int = Field(2000, ge=100)
    max_tokens: int = Field(1024, gt=0, description="longer pairs (prompt and both answers) are not judged")
    threads: int = Field(2, gt=0, description="CPU threads; part of the result, since float sums depend on it")
    device: Literal["cpu", "cuda"] = "cpu"


class RegisterAdapter(Section):
    pass


class ReleaseAdapter(Section):
    git_url: str | None = Field(None, description="repository that Argo CD follows; without it nothing is released")
    branch: str = "main"
    values_path: str = Field("environments/local/values.yaml", description="values file with the `adapter` block")
    cluster_url: str | None = Field(None, description="Kubernetes API, or the local rehearsal cluster's")
    gate_url: str | None = Field(None, description="the gate, for its evidence")
    namespace: str = "ratchet"
    canary: str = "adapter-router"
    poll_s: float = Field(1.0, gt=0)
    timeout_s: float = Field(3600, gt=0, description="give up waiting for the canary; the reconciler goes on")
    force: bool = Field(False, description="release although the offline verdict is not a pass; recorded in the ledger")


class Gate(Section):
    """The statistical gate that judges a canary on votes."""

    alpha: float = Field(0.05, gt=0, lt=0.5, description="error rate of each test over the whole canary")
    non_inferiority_margin: float = Field(
        0.1, gt=0, lt=1, description="how much lower than the champion's approval still passes"
    )
    max_tenant_share: float = Field(
        0.5, ge=0, le=1, description="no decision rests on one tenant alone that has less than this share of the votes"
    )
    min_votes: int = Field(4, ge=0, description="canary votes needed before each traffic step")
    max_minutes: float = Field(24 * 60, gt=0, description="a canary undecided for longer is rolled back")
    refresh_s: float = Field(1.0, gt=0)


class Config(Section):
    seed: int = 0
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


def load_config(path: Path) -> Config:
    """The checked configuration. Raises UserError with every fault, its place, and the nearest known key."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; `ratchet profile local > {path}` writes one"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise UserError(f"{path}:\n{faults}") from None


RENAMED = {
    "evaluate_adapter.tolerance": "non_inferiority_margin",
    "evaluate_adapter.judge.tolerance": "non_inferiority_margin",
    "gate.margin": "non_inferiority_margin",
}


def _explain(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{place} = {fault['input']!r}: {fault['msg']}"
    if place in RENAMED:
        return f"{place}: renamed to {RENAMED[place]!r}"
    known = _keys_at(fault["loc"][:-1])
    nearest = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
    return f"{place}: no such key; did you mean {nearest[0]!r}?" if nearest else f"{place}: no such key"


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    section: Any = Config
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
