import asyncio
import threading
from pathlib import Path
from typing import Any

from ratchet.events import Feedback
from ratchet.ingest.landing import landed, lines
from ratchet.router.event_log import EventLog, NotStored
from ratchet.store import LocalStore


def event(number: int, value: str = "better") -> Feedback:
    return Feedback(
        feedback_id=f"f{number}", interaction_id="i", subject_id="s", kind="correction", value=value, created_at=0
    )


def stored(store: LocalStore) -> list[list[str]]:
    """Feedback ids by landing file."""
    return [
        [Feedback.model_validate_json(line).feedback_id for _, line in lines(store, key)]
        for key in landed(store, "feedback")
    ]


class FullDisk(LocalStore):
    """A folder that has no room until it is told otherwise."""

    is_full = True

    def create(self, key: str, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().create(key, data)


def run(store: LocalStore, scenario: Any, **settings: Any) -> Any:
    async def inside() -> Any:
        async with EventLog(store, "test", **{"patience_s": 0.3, **settings}) as log:
            return await scenario(log)

    return asyncio.run(inside())


def test_events_of_a_moment_share_a_file(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> None:
        await asyncio.gather(*(log.append(event(number)) for number in range(20)))

    run(lake, scenario)
    assert stored(lake) == [[f"f{number}" for number in range(20)]]


def test_append_returns_after_the_event_is_in_the_lake(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> list[int]:
        seen = []
        for number in range(3):
            await log.append(event(number))
            seen.append(sum(map(len, stored(lake))))
        return seen

    assert run(lake, scenario) == [1, 2, 3]


def test_files_hold_at_most_a_full_batch(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> None:
        await asyncio.gather(*(log.append(event(number)) for number in range(5)))

    run(lake, scenario, max_batch=2)
    assert sorted(map(len, stored(lake))) == [1, 2, 2]


def test_failed_write_is_heard_by_every_caller_and_the_log_goes_on(lake: LocalStore) -> None:
    store = FullDisk(lake.path)

    async def scenario(log: EventLog) -> list[Any]:
        failures = await asyncio.gather(*(log.append(event(n)) for n in range(3)), return_exceptions=True)
        store.is_full = False
        await log.append(event(9))
        return failures

    failures = run(store, scenario)
    assert [type(failure) for failure in failures] == [NotStored] * 3
    assert "No space left" in str(failures[0])
    assert ["f9"] in stored(store)


class LostAnswer(LocalStore):
    """A store that does as it is told, and breaks off before it says so, every other time."""

    num_calls = 0

    def create(self, key: str, data: bytes) -> None:
        self.num_calls += 1
        super().create(key, data)
        if self.num_calls % 2:
            raise ConnectionError("broke off")


def test_write_whose_answer_is_lost_is_there_once(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> None:
        await asyncio.gather(*(log.append(event(number)) for number in range(3)))

    run(LostAnswer(lake.path), scenario, patience_s=30)
    assert stored(lake) == [["f0", "f1", "f2"]]


class Stuck(LocalStore):
    """A store whose first write hangs until it is let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.let_go, self.is_first = threading.Event(), True

    def create(self, key: str, data: bytes) -> None:
        is_first, self.is_first = self.is_first, False
        if is_first:
            self.let_go.wait(60)
        super().create(key, data)


def test_write_that_hangs_holds_nobody_else_up(lake: LocalStore) -> None:
    store = Stuck(lake.path)

    async def scenario(log: EventLog) -> list[list[str]]:
        hangs = asyncio.create_task(log.append(event(1)))
        while store.is_first:
            await asyncio.sleep(0)
        await log.append(event(2))
        seen = stored(store)
        store.let_go.set()
        await hangs
        return seen

    assert run(store, scenario, patience_s=60) == [["f2"]]
    assert sorted(stored(store)) == [["f1"], ["f2"]]


def test_nobody_waits_forever_and_what_waits_is_bounded(lake: LocalStore) -> None:
    store = Stuck(lake.path)

    async def scenario(log: EventLog) -> list[Any]:
        late = await asyncio.gather(log.append(event(1)), return_exceptions=True)
        too_much = await asyncio.gather(log.append(event(2)), return_exceptions=True)
        store.let_go.set()
        return [*late, *too_much]

    late, too_much = run(store, scenario, max_waiting_bytes=1)
    assert isinstance(late, NotStored) and "has not taken it within 0.3 s" in str(late)
    assert isinstance(too_much, NotStored) and "are waiting for the lake" in str(too_much)
    assert stored(store) == [["f1"]]


def test_closing_writes_what_waits(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> asyncio.Task[None]:
        task = asyncio.create_task(log.append(event(1)))
        await asyncio.sleep(0)
        return task

    async def inside() -> None:
        async with EventLog(lake, "test", pace_s=60) as log:
            task = await scenario(log)
        await task

    asyncio.run(inside())
    assert stored(lake) == [["f1"]]


def test_caller_that_goes_away_leaves_its_event_and_its_neighbours(lake: LocalStore) -> None:
    async def scenario(log: EventLog) -> None:
        gone, stays = (asyncio.create_task(log.append(event(number))) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await stays

    run(lake, scenario)
    assert stored(lake) == [["f1", "f2"]]


def test_event_that_cannot_be_written_fails_alone(lake: LocalStore) -> None:
    broken = event(1).model_copy(update={"value": "half a pair: \ud800"})

    async def scenario(log: EventLog) -> list[Any]:
        return await asyncio.gather(log.append(broken), log.append(event(2)), return_exceptions=True)

    first, second = run(lake, scenario)
    assert isinstance(first, NotStored)
    assert second is None
    assert stored(lake) == [["f2"]]


def test_two_writers_never_meet(lake: LocalStore) -> None:
    async def inside() -> None:
        async with EventLog(lake, "one", pace_s=0) as one, EventLog(lake, "two", pace_s=0) as two:
            await asyncio.gather(*(log.append(event(n)) for n in range(20) for log in (one, two)))

    asyncio.run(inside())
    assert sum(map(len, stored(lake))) == 40
