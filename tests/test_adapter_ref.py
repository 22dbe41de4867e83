"""The base model has one name for its missing digest, and everything that asks for it asks the same way."""

import pytest

from ratchet.adapter_ref import BASE_DIGEST, PREFIX, AdapterRef
from ratchet.events import Interaction
from ratchet.inference.syncer import wanted_adapters
from ratchet.release.ledger import LedgerRecord
from ratchet.router.settings import RouterSettings

ADAPTER = AdapterRef(name="adapter", version="1", uri="lake/1", digest="1" * 64)


@pytest.mark.parametrize(
    ("adapter", "is_base"),
    [(AdapterRef(), True), (ADAPTER, False), (AdapterRef(name="base", version="1", uri="x", digest="2" * 64), False)],
)
def test_the_digest_alone_says_whether_it_is_the_base_model(adapter: AdapterRef, is_base: bool) -> None:
    assert adapter.is_base == is_base
    assert AdapterRef.of_annotations({PREFIX + key: value for key, value in adapter.model_dump().items()}) == adapter


def test_no_adapter_is_the_same_digest_in_events_router_and_ledger() -> None:
    settings = RouterSettings(pool_url="http://pool", lake="lake", secret="s" * 32)
    served = Interaction.model_fields["adapter_digest"].default
    assert {AdapterRef().digest, settings.adapter_digest, served} == {BASE_DIGEST}
    record = LedgerRecord(seq=1, event="promoted", at=0.0, who="t", adapter=ADAPTER, baseline=AdapterRef())
    assert wanted_adapters([record], 4) == [ADAPTER]
