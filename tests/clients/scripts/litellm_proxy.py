"""The cells of OpenAI's client at a LiteLLM proxy that has the pool, or the router, as its upstream."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import harness

START_S = 120
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]
CONFIG = f"""
model_list:
  - model_name: {harness.MODEL}
    litellm_params:
      model: openai/{harness.MODEL}
      api_base: os.environ/OPENAI_BASE_URL
      api_key: os.environ/OPENAI_API_KEY
      max_retries: 0
litellm_settings: {{num_retries: 0}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
"""


@contextlib.contextmanager
def proxy():
    """A LiteLLM proxy, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG)
        command = [Path(sys.executable).parent / "litellm", "--config", config, "--host", "127.0.0.1"]
        log = (Path(folder) / "log").open("w")
        variables = {"LITELLM_MASTER_KEY": os.environ["OPENAI_API_KEY"], "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        process = subprocess.Popen([*command, "--port", str(PORT)], env=os.environ | variables, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{PORT}/health/liveliness", process, Path(log.name))
            yield f"http://127.0.0.1:{PORT}/v1"
        finally:
            process.terminate()
            process.wait()


def wait_for(url, process, log):
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        else:
            return


with proxy() as address:
    upstream = os.environ["OPENAI_BASE_URL"]
    os.environ["OPENAI_BASE_URL"] = address
    from openai_python import *  # noqa: F403  # the same calls, at the proxy

    os.environ["OPENAI_BASE_URL"] = upstream  # votes go to the router

    def vote_response():
        raw = client.responses.with_raw_response.create(model=harness.MODEL, input=harness.VOTE_ASKED)  # noqa: F405
        return ratchet_client.vote(raw, user="ann")  # noqa: F405 - the proxy replaces the id, and keeps the header

    harness.main(globals())
