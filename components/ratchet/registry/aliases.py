"""Aliases say which version serves: champion, previous (what a rollback returns to), challenger (what asks to serve).

MLflow's alias write takes no expected value: the last writer wins. So writers here read, compare, write and read
again, and one writer alone (the reconciler) moves champion and previous.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ratchet.errors import Conflict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"


def champion(client: "MlflowClient", model: str) -> "ModelVersion | None":
    """The version that serves; None before the first promotion, when the base model does."""
    version = aliases(client, model).get(CHAMPION)
    return None if version is None else client.get_model_version(model, version)


def aliases(client: "MlflowClient", model: str) -> dict[str, str]:
    """Every alias of the registered model with its version; empty where there is no such model yet."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in found.items()}


def version_of(client: "MlflowClient", model: str, adapter_digest: str) -> "ModelVersion | None":
    """The version that holds this adapter; the oldest, should there be several."""
    found = client.search_model_versions(f"name = '{model}' and tags.adapter_digest = '{adapter_digest}'")
    return min(found, key=lambda version: int(version.version), default=None)


def set_alias(client: "MlflowClient", model: str, alias: str, version: str, expected: str | None) -> None:
    """Move `alias` to `version` from `expected` (None: not set). Raises Conflict if it is, or ends, elsewhere.

    Already at `version` is success, so the same call twice is one move.
    """
    current = aliases(client, model).get(alias)
    if current == version:
        return
    if current != expected:
        raise Conflict(f"{model}@{alias} is at version {current}, not {expected}; it was not moved to {version}")
    client.set_registered_model_alias(model, alias, version)
    if (after := aliases(client, model).get(alias)) != version:
        raise Conflict(f"{model}@{alias} was moved to version {version}, and by another writer to {after}")


def restore(client: "MlflowClient", model: str, version: str | None) -> None:
    """Make `version` the champion again (None: the base model serves, so there is none).

    What it replaces does not become the previous one: nobody wants to go back to that.
    """
    before = aliases(client, model)
    if version is None:
        if CHAMPION in before:
            client.delete_registered_model_alias(model, CHAMPION)
    else:
        set_alias(client, model, CHAMPION, version, expected=before.get(CHAMPION))
    if before.get(PREVIOUS) == version and version is not None:
        client.delete_registered_model_alias(model, PREVIOUS)


def promote(client: "MlflowClient", model: str, version: str, tags: Mapping[str, str]) -> None:
    """Make `version` the champion, and what was champion the previous; write `tags` on it.

    Champion moves last: killed anywhere, the same call again ends in the same place.
    """
    for key, value in tags.items():
        client.set_model_version_tag(model, version, key, value)
    before = aliases(client, model)
    replaced = before.get(CHAMPION)
    if replaced is not None and replaced != version:
        set_alias(client, model, PREVIOUS, replaced, expected=before.get(PREVIOUS))
    set_alias(client, model, CHAMPION, version, expected=replaced)
