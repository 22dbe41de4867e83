"""The reconciler's health over real HTTP."""

import httpx
import pytest

from ratchet.errors import UserError
from ratchet.release.reconciler import health
from ratchet.release.reconciler.health import Health


def test_a_loop_that_goes_round_is_alive_and_one_that_hangs_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Health()
    with watched.served("127.0.0.1", 0) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert "pass_timestamp_seconds 0.0" in httpx.get(f"{url}/metrics").text
        watched.beat()
        assert "pass_timestamp_seconds 0.0" not in httpx.get(f"{url}/metrics").text
        monkeypatch.setattr(health, "STALLED_S", -1)
        assert httpx.get(f"{url}/healthz").status_code == 503
        watched.beat()
        assert httpx.get(f"{url}/other").status_code == 404


def test_a_taken_port_is_said() -> None:
    with Health().served("127.0.0.1", 0) as url, pytest.raises(UserError, match="cannot listen"):
        Health().served("127.0.0.1", int(url.rpartition(":")[2])).__enter__()
