"""A bar for a person at a terminal, a line now and then in a pod's log, nothing for short work."""

import contextlib
import io
import os
import pty

import pytest

from ratchet.progress import show_progress, track


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_at_most_every_interval() -> None:
    stream, clock = io.StringIO(), Clock()
    with show_progress("evaluate_adapter", 10, stream=stream, log_every_s=30, clock=clock) as progress:
        for _ in range(10):
            clock.now += 10
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "evaluate_adapter: 30% after 30 s",
        "evaluate_adapter: 60% after 60 s",
        "evaluate_adapter: 90% after 90 s",
    ]


def test_short_work_leaves_no_line_in_a_log() -> None:
    stream = io.StringIO()
    with show_progress("validate", 2, stream=stream) as progress:
        progress.advance(2)
    assert stream.getvalue() == ""


def test_a_line_carries_the_note_that_replaces_the_name() -> None:
    stream, clock = io.StringIO(), Clock()
    with show_progress("adapter@v1", 100, stream=stream, log_every_s=1, clock=clock) as progress:
        clock.now = 5
        progress.update(20, "adapter@v1: Progressing, 12 canary votes")
        clock.now = 9
        progress.update(40)
    assert stream.getvalue().splitlines() == [
        "adapter@v1: Progressing, 12 canary votes: 20% after 5 s",
        "adapter@v1: 40% after 9 s",
    ]


def test_work_of_unknown_size_does_not_divide_by_zero() -> None:
    stream, clock = io.StringIO(), Clock()
    with show_progress("import", 0, stream=stream, log_every_s=0, clock=clock) as progress:
        progress.advance(3)
    assert stream.getvalue() == "import: 100% after 0 s\n"


def test_a_terminal_gets_a_bar_that_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal, show_progress("evaluate_adapter", 4, stream=terminal) as progress:
        progress.update(1)
        progress.update(2, "half of it")
    shown = b""  # one read takes a part of what is there
    with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to
        while part := os.read(reader, 1 << 16):
            shown += part
    os.close(reader)
    text = shown.decode()
    assert "half of it" in text
    assert "50%" in text
    assert "\x1b[2K" in text  # the line is erased at the end
    assert " after " not in text


def test_items_are_tracked_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("abc", "read")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
