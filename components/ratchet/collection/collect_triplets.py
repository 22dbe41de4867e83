"""Step `collect_triplets`: join the events landed since the last collection into triplets, each event exactly once.

A run first finishes collections that were planned but not done (their collector was killed), then does its own. The
flows count the collections that this run worked on; feedback carried over from earlier ones, still waiting for its
interaction, counts as in again.
"""

from ratchet.collection.intents import landing_digest, plan_collections
from ratchet.collection.records import CollectionRecord, is_done, total_flow
from ratchet.config import Config
from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import TRIPLETS
from ratchet.manifest import Artifact, StepOutput
from ratchet.needs import HOUR_S, Needs
from ratchet.step import Inputs, Step
from ratchet.store import Store


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    from ratchet.collection.exactly_once import collect

    intents = plan_collections(store, config.collect_triplets.late_days)
    # With none to do, the last is counted again: a killed run may have done it without publishing the manifest.
    undone = [intent for intent in intents if not is_done(store, intent.number)] or intents[-1:]
    collected = [
        CollectionRecord.read(store, intent.number) if is_done(store, intent.number) else collect(store, intent)
        for intent in undone
    ]
    content = sum((CollectionRecord.read(store, intent.number).content for intent in intents), Fingerprint())
    return StepOutput(
        outputs={"triplets": Artifact(uri=TRIPLETS.key, digest=content.digest(), rows=content.num_rows)},
        flows={
            "interactions": total_flow(record.interactions for record in collected),
            "feedback": total_flow(record.feedback for record in collected),
        },
        facts={
            "collections": [intent.number for intent in undone],
            "files": sum(len(intent.files) for intent in undone),
            "refused": [record.refused for record in collected if record.refused],
        },
    )


STEP = Step(
    name="collect_triplets",
    run=run,
    version=4,
    sources=lambda config, inputs, store: {"landing": landing_digest(store)},
    needs=Needs(cpu="4", memory="8Gi", ephemeral_storage="20Gi", timeout_s=2 * HOUR_S),
)
