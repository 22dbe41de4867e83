"""The four words that say which adapter runs: in Git's values, in a pod's annotations, in the ledger."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict

PREFIX = "ratchet.dev/adapter-"
KEYS = ("name", "version", "uri", "digest")


class AdapterRef(BaseModel):
    """An adapter as Git and pods name it. The default is the base model alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "base"
    version: str = "0"
    uri: str = ""
    digest: str = "base"

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"

    @classmethod
    def of_annotations(cls, annotations: Mapping[str, str]) -> Self | None:
        """What a pod template says it runs; None where it does not say."""
        found = {key: annotations[PREFIX + key] for key in KEYS if PREFIX + key in annotations}
        return cls.model_validate(found) if len(found) == len(KEYS) else None
