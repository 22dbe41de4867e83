"""Aliases name the version that serves (champion), the one that a rollback returns to (previous), and the challenger.

MLflow's alias write takes no expected value: the last writer wins. So writers here read, compare, write and read
again, and one writer alone (the reconciler) moves champion and previous.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ratchet.errors import Conflict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


class RegisteredModel(Protocol):
    """A registered model of MLflow, as far as it is read here."""

    @property
    def aliases(self) -> Mapping[str, str]: ...


class ModelVersion(Protocol):
    """A version of a registered model, as far as it is read here."""

    @property
    def version(self) -> str: ...

    @property
    def tags(self) -> Mapping[str, str]: ...


class RegistryReader(Protocol):
    """The calls of `MlflowClient` that read one registered model."""

    def get_registered_model(self, name: str) -> RegisteredModel: ...

    def get_model_version(self, name: str, version: str) -> ModelVersion: ...


class RegistryWriter(Protocol):
    """The calls of `MlflowClient` by which a release changes the registry: all of them, so that all can be guarded."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None: ...

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None: ...

    def delete_registered_model_alias(self, name: str, alias: str) -> None: ...


class Registry(RegistryReader, RegistryWriter, Protocol):
    """Reads and writes of one registered model: `MlflowClient`, or a fake."""


def champion(registry: RegistryReader, model: str) -> ModelVersion | None:
    """Return the version that serves; None before the first promotion, when the base model serves."""
    version = aliases(registry, model).get(CHAMPION)
    return None if version is None else registry.get_model_version(model, version)


def aliases(registry: RegistryReader, model: str) -> dict[str, str]:
    """Return every alias of the registered model with its version; empty if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        by_alias = registry.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in by_alias.items()}


def version_of(client: "MlflowClient", model: str, adapter_digest: str) -> "MlflowVersion | None":
    """Return the version that holds this adapter: the oldest, if there are several."""
    versions = client.search_model_versions(f"name = '{model}' and tags.adapter_digest = '{adapter_digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


def set_alias(
    registry: RegistryReader, writer: RegistryWriter, model: str, alias: str, version: str, expected: str | None
) -> None:
    """Move `alias` to `version` from `expected` (None: not set). Raises Conflict if it is, or ends, elsewhere.

    Already at `version` is success, so the same call twice is one move. `writer` may be `registry` itself, or a
    guard in front of it.
    """
    current = aliases(registry, model).get(alias)
    if current == version:
        return
    if current != expected:
        raise Conflict(f"{model}@{alias} is at version {current}, not {expected}; it was not moved to {version}")
    writer.set_registered_model_alias(model, alias, version)
    if (after := aliases(registry, model).get(alias)) != version:
        raise Conflict(f"{model}@{alias} was moved to version {version}, and by another writer to {after}")


def restore(registry: RegistryReader, writer: RegistryWriter, model: str, version: str | None) -> None:
    """Make `version` the champion again; None removes the alias, since the base model serves.

    The version that it replaces does not become previous: a rollback must not return to it.
    """
    before = aliases(registry, model)
    if version is None:
        if CHAMPION in before:
            writer.delete_registered_model_alias(model, CHAMPION)
    else:
        set_alias(registry, writer, model, CHAMPION, version, expected=before.get(CHAMPION))
    if before.get(PREVIOUS) == version and version is not None:
        writer.delete_registered_model_alias(model, PREVIOUS)


def promote(
    registry: RegistryReader, writer: RegistryWriter, model: str, version: str, tags: Mapping[str, str]
) -> None:
    """Make `version` the champion and the champion before it previous, and write `tags` on the version.

    Champion moves last: killed anywhere, the same call again ends in the same place.
    """
    for key, value in tags.items():
        writer.set_model_version_tag(model, version, key, value)
    before = aliases(registry, model)
    replaced = before.get(CHAMPION)
    if replaced is not None and replaced != version:
        set_alias(registry, writer, model, PREVIOUS, replaced, expected=before.get(PREVIOUS))
    set_alias(registry, writer, model, CHAMPION, version, expected=replaced)
