"""The contract between steps: a step's outputs by content digest, and the inputs that they were made from."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.digest import digest_json

FEEDBACK_INDEX = "feedback_index.parquet"  # in every dataset: the rows made from each vote, or why there are none


class Artifact(BaseModel):
    """An output of a step: its URI and the digest of its content.

    The URI is relative to the lake, so a manifest stays valid wherever the lake is mounted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    digest: str
    rows: int | None = None


class Flow(BaseModel):
    """Counts of rows through a step: each row in comes out or is dropped for one reason. Checked to add up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: int
    rows_out: int
    drops: dict[str, int] = {}

    @model_validator(mode="after")
    def _nothing_vanishes(self) -> Self:
        dropped = sum(self.drops.values())
        if self.rows_in != self.rows_out + dropped:
            raise ValueError(f"{self.rows_in} rows in, but {self.rows_out} out and {dropped} dropped: {self.drops}")
        return self


class StepOutput(BaseModel):
    """The return value of a step's `run`; `run_step` publishes it as a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outputs: dict[str, Artifact]
    flows: dict[str, Flow] = Field({}, description="by unit: interactions, feedback, triplets")
    facts: dict[str, Any] = Field({}, description="numbers and texts for people and reports; no step reads them")


class Manifest(StepOutput):
    """A step's published result. Two manifests with equal `digest` describe the same work and the same bytes."""

    step: str
    key: str = Field(description="digest of all that the result depends on; also its file name")
    inputs: dict[str, str] = Field(description="digest of each input's manifest, by name")
    code_version: str
    created_at: float = Field(description="Unix seconds")
    seconds: float

    @cached_property
    def digest(self) -> str:
        """The identity of the result by content: time, URIs and `facts` do not count."""
        members = {name: artifact.digest for name, artifact in self.outputs.items()}
        return digest_json({"step": self.step, "outputs": members, "inputs": self.inputs})

    @property
    def uri(self) -> str:
        return manifest_uri(self.step, self.key)


def manifest_uri(step: str, key: str) -> str:
    return f"manifests/{step}/{key}.json"


def step_key(step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the key under which the result of this work is published: equal work gives equal keys."""
    return digest_json({"step": step, "version": version, "settings": settings, "inputs": inputs})[:32]
