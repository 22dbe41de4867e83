import pytest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Manifest, StepOutput
from ratchet.step import Step, assist_step, key_of, run_step, share_step
from ratchet.store import Store


class Counting:
    """A step's work that counts how often it is done."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, config: Config, inputs: dict[str, Manifest], store: Store) -> StepOutput:
        self.times += 1
        return StepOutput(outputs={"out": Artifact(uri="x", digest=f"seed-{config.seed}")})


def step(work: Counting, **changes: object) -> Step:
    return Step(**({"name": "validate_triplets", "run": work} | changes))


def test_work_is_done_once(lake: Store):
    work = Counting()
    first, second = (run_step(step(work), Config(), {}, lake) for _ in range(2))
    assert (first.is_new, second.is_new, work.times) == (True, False, 1)
    assert first.manifest == second.manifest


def test_own_settings_and_version_redo_the_work(lake: Store):
    work = Counting()
    strict = Config.model_validate({"validate_triplets": {"max_bad_share": 0}})
    run_step(step(work), Config(), {}, lake)
    run_step(step(work), strict, {}, lake)
    run_step(step(work, version=2), Config(), {}, lake)
    assert work.times == 3


def test_other_settings_do_not_redo_it(lake: Store):
    work = Counting()
    run_step(step(work), Config(), {}, lake)
    run_step(step(work), Config(seed=1), {}, lake)
    assert work.times == 1


def test_settings_that_it_reads_redo_it(lake: Store):
    work = Counting()
    run_step(step(work, reads=("seed",)), Config(), {}, lake)
    run_step(step(work, reads=("seed",)), Config(seed=1), {}, lake)
    assert work.times == 2


def test_new_sources_redo_it(lake: Store):
    work = Counting()
    for state in ("one", "one", "two"):
        run_step(step(work, sources=lambda *_, state=state: {"state": state}), Config(), {}, lake)
    assert work.times == 2


def test_equal_inputs_made_elsewhere_give_the_same_key(lake: Store):
    made = run_step(step(Counting()), Config(), {}, lake).manifest
    elsewhere = made.model_copy(update={"created_at": 0.0, "seconds": 99.0})
    reader = step(Counting(), name="build_datasets", inputs=("validate_triplets",))
    keys = [key_of(reader, Config(), {"validate_triplets": found}, lake) for found in (made, elsewhere)]
    assert keys[0] == keys[1]


def test_wrong_inputs_are_named(lake: Store):
    with pytest.raises(UserError, match="takes the inputs"):
        run_step(step(Counting(), inputs=("collect_triplets",)), Config(), {}, lake)


def test_of_two_runs_of_the_same_work_both_return_what_was_published_first(lake: Store):
    class Overtaken(Counting):
        def __call__(self, config: Config, inputs: dict[str, Manifest], store: Store) -> StepOutput:
            if self.times == 0:
                self.times += 1
                self.other = run_step(step(self), config, inputs, store)
            return super().__call__(config, inputs, store)

    work = Overtaken()
    late = run_step(step(work), Config(), {}, lake)
    assert work.other.is_new
    assert not late.is_new
    assert late.manifest == work.other.manifest


def test_failed_work_publishes_nothing(lake: Store):
    def fail(*_: object) -> StepOutput:
        raise UserError("no")

    with pytest.raises(UserError):
        run_step(Step(name="validate_triplets", run=fail), Config(), {}, lake)
    assert list(lake.list("manifests")) == []


def test_leftovers_are_tidied_once_the_manifest_is_there(lake: Store):
    seen = []

    def cleanup(config: Config, inputs: dict[str, Manifest], store: Store) -> None:
        seen.extend(store.list("manifests"))

    work = step(Counting(), cleanup=cleanup)
    ran = run_step(work, Config(), {}, lake)
    run_step(work, Config(), {}, lake)
    assert seen == [ran.manifest.uri]


def test_further_processes_assist_only_where_there_is_work_left(lake: Store):
    helped = Counting()
    assist_step(step(Counting(), assist=helped), Config(), {}, lake)
    run_step(step(Counting(), assist=helped), Config(), {}, lake)
    assist_step(step(Counting(), assist=helped), Config(), {}, lake)
    assert helped.times == 1


def test_further_processes_are_refused_by_a_step_of_one(lake: Store):
    with pytest.raises(UserError, match="validate_triplets runs in one process"):
        assist_step(step(Counting()), Config(), {}, lake)


def test_shares_are_made_only_where_there_is_work_left(lake: Store):
    asked = []

    def share(config: Config, inputs: dict[str, Manifest], store: Store, number: int, of: int) -> int:
        asked.append((number, of))
        return 7

    shared = step(Counting(), share=share)
    assert share_step(shared, Config(), {}, lake, 2, 3) == 7
    run_step(shared, Config(), {}, lake)
    assert share_step(shared, Config(), {}, lake, 3, 3) == 0
    assert asked == [(2, 3)]


def test_a_step_without_parts_has_nothing_to_share(lake: Store):
    with pytest.raises(UserError, match="validate_triplets has no parts to share"):
        share_step(step(Counting()), Config(), {}, lake, 1, 2)
