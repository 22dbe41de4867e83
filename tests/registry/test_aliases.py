"""Champion, previous, challenger: moved by comparison, and back in order after a crash."""

import pytest
from mlflow import MlflowClient

from ratchet.config import Config
from ratchet.errors import Conflict
from ratchet.registry.aliases import aliases, champion, promote, set_alias, version_of
from ratchet.registry.mlflow_store import connect
from ratchet.store import LocalStore


@pytest.fixture
def client(registry_lake: LocalStore) -> MlflowClient:
    """Three versions of the model `adapter`."""
    client = connect(Config(), registry_lake)
    client.create_registered_model("adapter")
    for digest in ("aa", "bb", "cc"):
        client.create_model_version("adapter", registry_lake.root, tags={"adapter_digest": digest})
    return client


def test_nothing_is_champion_before_the_first_promotion(client: MlflowClient) -> None:
    assert champion(client, "adapter") is None
    assert champion(client, "never registered") is None


def test_promotion_keeps_what_it_replaced(client: MlflowClient) -> None:
    promote(client, client, "adapter", "1", {})
    assert aliases(client, "adapter") == {"champion": "1"}
    promote(client, client, "adapter", "2", {"promoted_at": "12"})
    assert aliases(client, "adapter") == {"champion": "2", "previous": "1"}
    assert champion(client, "adapter").tags["promoted_at"] == "12"


def test_promoting_the_champion_again_keeps_previous(client: MlflowClient) -> None:
    for version in ("1", "2", "2"):
        promote(client, client, "adapter", version, {})
    assert aliases(client, "adapter") == {"champion": "2", "previous": "1"}


def test_promotion_killed_halfway_ends_in_the_same_place(client: MlflowClient) -> None:
    promote(client, client, "adapter", "1", {})
    set_alias(client, client, "adapter", "previous", "1", expected=None)  # as far as the killed one came
    promote(client, client, "adapter", "2", {})
    assert aliases(client, "adapter") == {"champion": "2", "previous": "1"}


def test_alias_elsewhere_is_a_conflict_and_stays(client: MlflowClient) -> None:
    set_alias(client, client, "adapter", "challenger", "1", expected=None)
    with pytest.raises(Conflict, match=r"adapter@challenger is at version 1, not 3; it was not moved to 2"):
        set_alias(client, client, "adapter", "challenger", "2", expected="3")
    assert aliases(client, "adapter") == {"challenger": "1"}


def test_alias_that_is_there_already_is_no_conflict(client: MlflowClient) -> None:
    set_alias(client, client, "adapter", "challenger", "1", expected=None)
    set_alias(client, client, "adapter", "challenger", "1", expected=None)
    assert aliases(client, "adapter") == {"challenger": "1"}


def test_versions_are_found_by_adapter_digest(client: MlflowClient, registry_lake: LocalStore) -> None:
    assert str(version_of(client, "adapter", "bb").version) == "2"
    assert version_of(client, "adapter", "dd") is None
    client.create_model_version("adapter", registry_lake.root, tags={"adapter_digest": "bb"})
    assert str(version_of(client, "adapter", "bb").version) == "2"
