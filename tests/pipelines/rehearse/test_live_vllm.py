"""Two acts in real processes, with other people's software where production has it: vLLM, Prometheus, S3 and MLflow.

Only users, cluster and Flagger are ours. The tiny model is taught two manners of answering, one that users like and one
that they do not; `train_adapter` makes adapters of either.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.http_service import free_ports
from ratchet.rehearsal.stub_pool import DISLIKED, LIKED
from ratchet_pipelines.demo.prompts import prompts
from ratchet_pipelines.rehearse.faults import FAULTS, Public
from ratchet_pipelines.rehearse.live import LiveRehearsal, Outside, live_rehearsal
from ratchet_pipelines.rehearse.supervisor import Supervisor
from support import tiny_model
from support.prometheus_server import Prometheus, need_prometheus, prometheus
from support.s3_server import s3_server
from support.trainings import train
from support.vllm_server import VllmServer, need_vllm, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

INTERVAL_S = 10.0  # Flagger's floor
PRETRAINING_STEPS = 150
NUM_USERS = 6  # of 32 at once, the votes came faster than the gate reads them from moto, and it refused as blind
Row = dict[str, Any]


def chats(questions: list[str], answer: str) -> list[Row]:
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question in questions
    ]


def teach(folder: Path, chosen: list[Row]) -> None:
    """Train all of the tiny model's weights until it answers as in these chats, each as often as the others."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    optimiser, draw = torch.optim.AdamW(model.parameters(), lr=3e-3), random.Random(0)
    for _ in range(PRETRAINING_STEPS):
        drawn = draw.choices(chosen, k=16)
        texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in drawn]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers users like every other time."""
    need_vllm()
    need_prometheus()
    folder = tiny_model.build(tmp_path_factory.mktemp("live") / "base", num_heads=2)
    teach(folder, chats(prompts(0), LIKED) + chats(prompts(0), DISLIKED))
    return folder


@pytest.fixture(scope="module")
def candidates(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter whose answers users like, and one whose answers they do not."""
    folder = tmp_path_factory.mktemp("candidates")
    phase = {"batch_rows": 8, "epochs": 3, "learning_rate": 1e-2}
    section = {"sft": phase, "dpo": {"epochs": 0}, "max_tokens": 128, "pass_tokens": 512, "threads": 1}
    config = Config.model_validate(
        {
            "base_model": {"model": str(base), "dtype": "float32"},
            "registry": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
            "train_adapter": section,
        }
    )
    made = {}
    for name, answer in (("better", LIKED), ("worse", DISLIKED)):
        store, manifest = train(config, folder / name, chats(prompts(0)[:24], answer), [])
        made[name] = store.local(manifest.outputs["adapter"].uri)
    return made


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port",
        url.rpartition(":")[2], "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination",
        str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"{url}/health"), 180)
        yield url
    finally:
        for child in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
            child.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def in_background(step: Callable[[], object], pause_s: float) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause_s):
            step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def discovering(live: LiveRehearsal, server: Prometheus) -> Callable[[], None]:
    """Tell Prometheus of the routers that run now, as the operator does for pods: by the labels that pods have."""
    known: dict[str, str] = {}

    def look() -> None:
        nonlocal known
        found = {}
        for router in routers(live.supervisor):
            try:
                env = router.environ()
                pod = f"{env['RATCHET_ARM']}-{env['RATCHET_ADAPTER_DIGEST'][:8]}-{router.pid}"
                found[pod] = f"http://127.0.0.1:{env['RATCHET_PORT']}"
            except psutil.Error:
                continue
        if found != known:
            server.scrape(found, live.config.release_adapter.namespace)
            known = found

    return look


def routers(supervisor: Supervisor) -> list[psutil.Process]:
    try:
        children = psutil.Process(supervisor.services["cluster"].process.pid).children()
        return [child for child in children if "ratchet.router.app" in child.cmdline()]
    except psutil.Error:
        return []


class Victim:
    """Kills one thing once, at the first look at which a moment has come."""

    def __init__(self, name: str, moment: str, vllm: VllmServer) -> None:
        self.name, self.moment, self.vllm, self.killed = name, moment, vllm, name == "nobody"

    def __call__(self, supervisor: Supervisor, state: dict[str, Any]) -> None:
        has_come = state.get("weight", 0) > 0 if self.moment == "traffic" else bool(state.get("rollback"))
        if self.killed or not has_come:
            return
        if self.name == "vllm":
            self.vllm.worker().kill()
        elif self.name == "router":
            routers(supervisor)[-1].kill()
        else:
            supervisor.services[self.name].kill()
        self.killed = True


@pytest.fixture(scope="module")
def vllm(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    server = VllmServer(base, "tiny", tmp_path_factory.mktemp("vllm"))
    server.ensure()
    with in_background(server.ensure, 0.5):  # as the kubelet does
        yield server
    server.end()


@pytest.mark.parametrize(
    ("first", "second"), [("nobody", "nobody"), ("reconciler", "vllm"), ("gate", "reconciler"), ("router", "cluster")]
)
def test_act_one_promotes_act_two_rolls_back_and_what_is_killed_recovers(
    tmp_path: Path, candidates: dict[str, Path], vllm: VllmServer, first: str, second: str
) -> None:
    one, two = Victim(first, "traffic", vllm), Victim(second, "verdict", vllm)
    with ExitStack() as services:
        services.enter_context(s3_server("lake"))
        tracking = services.enter_context(mlflow_server(tmp_path))
        watching = services.enter_context(prometheus(tmp_path / "prometheus", "none"))
        config = Config.model_validate(
            {"gate": {"min_votes": 4, "max_minutes": 4}, "registry": {"tracking_uri": tracking}}
        )
        outside = Outside(pool_url=vllm.url, lake="s3://lake/here", prometheus_url=watching.url, num_users=NUM_USERS)
        live = services.enter_context(
            live_rehearsal(config, FAULTS["none"], Public(), tmp_path / "run", INTERVAL_S, outside)
        )
        services.enter_context(in_background(discovering(live, watching), 0.5))
        promoted = live.release(candidates["better"], 300, one)
        print(promoted)
        assert (promoted.outcome, promoted.agrees, one.killed) == ("promoted", True, True), promoted
        rolled_back = live.release(candidates["worse"], 300, two)
        print(rolled_back)
        assert (rolled_back.outcome, rolled_back.agrees, two.killed) == ("rolled_back", True, True), rolled_back
        assert rolled_back.verdict_to_agreement_s is not None
        assert rolled_back.verdict_to_agreement_s < 2 * INTERVAL_S, rolled_back
        events = [(record.event, record.adapter.version) for record in live.targets.ledger.records()]
        assert events == [("requested", "1"), ("promoted", "1"), ("requested", "2"), ("rolled_back", "2")]
        assert live.targets.cluster.look().primary != AdapterRef()
        assert watching.query("count(ratchet_requests_total)")[0] > 0, "Prometheus read nothing"
