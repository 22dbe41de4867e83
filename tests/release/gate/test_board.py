"""The gate's page, in a real browser: it shows the canary, refreshes by itself, aborts, and fits a phone."""

from collections.abc import Iterator

import pytest

from ratchet.config import Config
from ratchet.release.gate.app import build_app
from ratchet.release.gate.state import GateState
from ratchet.release.ledger import read_ledger
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.store import Store
from support import browser
from support.release_edges import NEW, TOKEN, FakeCluster, land_votes, open_release, serving

PHONE, DESK = (360, 740), (1280, 800)
pytestmark = [
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no browser: `make system` brings chromium"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.page(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def board(config: Config, lake: Store, cluster: FakeCluster) -> Iterator[str]:
    """The URL of a gate with a canary at 50 percent."""
    open_release(lake)
    cluster.start_run(weight=50)
    with (
        ClusterReader(cluster.url, "ratchet", "adapter-router") as seen,
        serving(build_app(GateState(config, lake, seen), TOKEN)) as url,
    ):
        yield url


def text_of(name: str) -> str:
    return f"document.getElementById('{name}')?.textContent"


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_shows_the_canary_and_follows_it_by_itself(
    page: browser.Page, board: str, lake: Store, size: tuple[int, int]
) -> None:
    page.show(f"{board}/#token={TOKEN}", *size)
    page.until(f"{text_of('weight')} === '50 %' && {text_of('phase')}.includes('Progressing')")
    assert NEW.digest[:12] in page.tell(text_of("title"))
    page.tell("window.isTheSamePage = true")
    land_votes(lake, 320, 0.9, 0.2)
    page.until(f"{text_of('canary')}.includes(' of 160 up')")
    page.until("document.querySelectorAll('#chart path').length === 2")
    page.until(f"{text_of('why')}.includes('like the candidate less')")
    assert page.tell("window.isTheSamePage") is True
    assert page.tell("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.tell("document.getElementById('stop').getBoundingClientRect().height >= 44")  # a thumb's width
    assert "token" not in page.tell("location.href")


def test_an_operator_rolls_back_from_it(page: browser.Page, board: str, lake: Store) -> None:
    page.show(f"{board}/#token={TOKEN}", *PHONE)
    page.until("document.getElementById('stop')?.disabled === false")
    page.tell("document.getElementById('reason').value = 'users <b>call</b>'")
    page.tell("document.getElementById('stop').click()")
    page.until(f"{text_of('aborted')}.includes('to be rolled back')")
    assert [(each.event, each.why) for each in read_ledger(lake)][1:] == [("abort_requested", "users <b>call</b>")]
    page.until(f"{text_of('records')}.includes('users <b>call</b>')")  # as text, not as markup


def test_without_the_token_it_shows_nothing_and_asks_for_it(page: browser.Page, board: str) -> None:
    page.show("about:blank", *PHONE)
    page.show(board.replace("127.0.0.1", "localhost"), *PHONE)  # another origin: no token is remembered there
    page.until("document.getElementById('ask')?.hidden === false")
    assert page.tell("document.getElementById('shown').hidden") is True
    page.tell(f"document.getElementById('token').value = {TOKEN!r}")
    page.tell("document.querySelector('#enter button').click()")
    page.until(f"{text_of('weight')} === '50 %'")
