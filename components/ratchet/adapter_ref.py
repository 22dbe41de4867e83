"""Name the adapter that runs, by four keys: in Git's values file, in a pod's annotations, in the ledger."""

from collections.abc import Mapping
from typing import NewType, Self

from pydantic import BaseModel, ConfigDict

PREFIX = "ratchet.dev/adapter-"
KEYS = ("name", "version", "uri", "digest")

AdapterDigest = NewType("AdapterDigest", str)
"""Content digest of an adapter's files, or BASE_DIGEST."""
BASE_DIGEST = AdapterDigest("base")
"""Stands in for the digest where the base model serves without an adapter."""


class AdapterRef(BaseModel):
    """An adapter as Git and pods name it. The default is the base model alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "base"
    version: str = "0"
    uri: str = ""
    digest: AdapterDigest = BASE_DIGEST

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"

    @property
    def is_base(self) -> bool:
        """Whether this is the base model alone, which no registry and no model pool holds as an adapter."""
        return self.digest == BASE_DIGEST

    @classmethod
    def of_annotations(cls, annotations: Mapping[str, str]) -> Self | None:
        """Return the adapter of a pod template's annotations; None unless all four are there."""
        keys = {key: annotations[PREFIX + key] for key in KEYS if PREFIX + key in annotations}
        return cls.model_validate(keys) if len(keys) == len(KEYS) else None
