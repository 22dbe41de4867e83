"""The contract between steps: what a step made, by content digest, and what it was made from."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.digest import digest_json

FEEDBACK_INDEX = "feedback_index.parquet"  # in every dataset: which rows each vote shaped, or why none


class Artifact(BaseModel):
    """Something a step made, at a URI, known by its content.

    The URI is a path relative to the lake, so that a manifest means the same wherever the lake is mounted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    digest: str
    rows: int | None = None


class Flow(BaseModel):
    """Rows through a step: every row in comes out or is dropped for one counted reason."""

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
    """What a step's `run` returns; `run_step` turns it into a published manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outputs: dict[str, Artifact]
    flows: dict[str, Flow] = Field({}, description="by unit: interactions, feedback, triplets")
    facts: dict[str, Any] = Field({}, description="numbers and words for people and reports; never read by a step")


class Manifest(StepOutput):
    """A step's published result. Two manifests with equal `digest` describe the same work and the same bytes."""

    step: str
    key: str = Field(description="digest of everything the result depends on; also its file name")
    inputs: dict[str, str] = Field(description="name of each input to the digest of its manifest")
    code_version: str
    created_at: float = Field(description="Unix seconds")
    seconds: float

    @cached_property
    def digest(self) -> str:
        """Identity by content: time, place and `facts` do not count."""
        members = {name: artifact.digest for name, artifact in self.outputs.items()}
        return digest_json({"step": self.step, "outputs": members, "inputs": self.inputs})

    @property
    def uri(self) -> str:
        return manifest_uri(self.step, self.key)


def manifest_uri(step: str, key: str) -> str:
    return f"manifests/{step}/{key}.json"


def step_key(step: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Where the result of this work is published: equal work, equal key."""
    return digest_json({"step": step, "version": version, "settings": settings, "inputs": inputs})[:32]
