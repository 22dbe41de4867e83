"""Argo CD is asked to look at Git, in the words of its own API; whether it does or not, the release goes on."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from ratchet.config import Config, ReleaseAdapter
from ratchet.release.reconciler import argocd
from ratchet.release.reconciler.argocd import TOKEN, Refresh
from ratchet.release.reconciler.gitops import ReleaseValues, ValuesFile
from support import chart_facts
from support.release_edges import NEW

API = chart_facts.read("argo-cd")["refresh"]


class Answer:
    """What the server says next, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.hold = threading.Event()
        self.hold.set()


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.asked.append((self.command, self.path, dict(self.headers)))
            answer.hold.wait(10)
            self.send_response(answer.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}"
        finally:
            answer.hold.set()
            listening.shutdown()


def test_the_request_is_one_of_argo_cds_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "may-get-one")
    answer = Answer()
    with server(answer) as url:
        Refresh(f"{url}/", "argocd/adapter-router")()
    ((method, target, headers),) = answer.asked
    place = urlsplit(target)
    assert method == API["method"]
    assert place.path == API["path"].format(name="adapter-router")
    query = parse_qs(place.query)
    assert set(query) <= set(API["query"])
    assert query["refresh"][0] in API["kinds"]
    assert query["appNamespace"] == ["argocd"]
    assert headers["Authorization"] == "Bearer may-get-one"


def test_an_answer_that_takes_long_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers once it has compared, and began to when it was asked."""
    monkeypatch.setattr(argocd, "TIMEOUT_S", 0.2)
    answer = Answer()
    answer.hold.clear()
    with server(answer) as url:
        Refresh(url, "argocd/adapter-router")()
        assert len(answer.asked) == 1
    assert caplog.records == []


@pytest.mark.parametrize(("status", "advice"), [(401, TOKEN), (403, TOKEN), (404, "argocd_application")])
def test_a_refusal_is_said_with_what_to_do_and_nothing_fails(
    status: int, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = Answer()
    answer.status = status
    with caplog.at_level(logging.WARNING), server(answer) as url:
        Refresh(url, "argocd/adapter-router")()
    assert str(status) in caplog.text
    assert advice in caplog.text


def test_nobody_there_is_said_and_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    with server(Answer()) as url:
        pass
    for place in (url, "https://argocd:not-a-port"):
        caplog.clear()
        Refresh(place, "argocd/adapter-router")()
        assert "does not answer" in caplog.text


def test_each_commit_asks_once_and_a_pass_without_one_does_not(repository: Path) -> None:
    asked: list[int] = []
    with ValuesFile(str(repository), "main", "env/values.yaml", on_push=lambda: asked.append(1)) as values:
        assert values.name_once(ReleaseValues(NEW), "Release", "run-1").is_new
        assert asked == [1]
        assert not values.name_once(ReleaseValues(NEW), "Release", "run-1").is_new
        values.look("run-1")
    assert asked == [1]


def test_an_application_in_argo_cds_own_namespace_is_named_alone() -> None:
    answer = Answer()
    with server(answer) as url:
        Refresh(url, ReleaseAdapter().argocd_application)()
    ((_, target, _),) = answer.asked
    assert parse_qs(urlsplit(target).query) == {"refresh": ["normal"]}
    assert urlsplit(target).path == API["path"].format(name="adapter-router")


def test_a_name_of_three_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="argocd_application"):
        ReleaseAdapter(argocd_application="a/b/c")


def test_argo_cd_is_asked_only_where_it_is_named() -> None:
    assert Config().release_adapter.argocd_url is None
