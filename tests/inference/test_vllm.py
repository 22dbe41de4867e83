"""Our adapters, syncer and router with a real vLLM, which nobody here wrote. PEFT says what is right.

float32 and one thread, so that answers can be compared token by token. Its CPU backend is a third party's build.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ratchet.adapter_files import CONFIG, WEIGHTS
from ratchet.adapter_ref import AdapterRef
from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.inference.metrics import LABELS
from ratchet.inference.server import create_app as model_server
from ratchet.release.ledger import EventName, Ledger, LedgerEntry
from ratchet.store import LocalStore
from support import tiny_model
from support.http_server import running
from support.router_client import SECRET, interactions
from support.served_models import louder
from support.trainings import DPO, SFT, train
from support.vllm_server import VllmServer, need_vllm, service, wait_for

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

QUESTIONS = [
    "Why is the sky blue?", "Bread?", "How do bees make honey?", "Tell me about France.", "What is the capital?",
    "No.", "Is bread made of flour, water, salt and yeast?", "Why?",
]  # fmt: skip
MAX_ADAPTERS = 3
TOLERANCE = 1e-3  # of a log-probability; measured: 2e-5
POLL_S = 0.2
TOKENS = 24


@dataclass(frozen=True)
class Answer:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


@dataclass
class Stack:
    """Services as processes beside one vLLM, over one lake. `candidate` is released, `champion` serves."""

    lake: LocalStore
    vllm: VllmServer
    champion: AdapterRef
    candidate: AdapterRef
    folder: Path
    syncer: str
    routers: dict[str, str]

    def record(self, event: EventName, adapter: AdapterRef, baseline: AdapterRef | None = None) -> None:
        entry = LedgerEntry(event=event, at=0, who="test", adapter=adapter, baseline=baseline)
        Ledger(self.lake).append(lambda _: entry)

    def publish(self, folder: Path, version: int, digest: str = "") -> AdapterRef:
        digest = digest or digest_tree(folder)
        self.lake.put_tree(folder, f"adapters/{digest}")
        return AdapterRef(
            name="adapter", version=str(version), uri=f"{self.lake.root}/adapters/{digest}", digest=digest
        )

    def files_of(self, adapter: AdapterRef) -> Path:
        return self.lake.path / "adapters" / adapter.digest

    def loaded(self) -> dict[str, str]:
        cards = httpx.get(f"{self.vllm.url}/v1/models", timeout=30).json()["data"]
        return {card["id"]: card["root"] for card in cards if card["parent"]}

    def is_ready(self) -> bool:
        return httpx.get(f"{self.syncer}/readyz", timeout=30).is_success

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.syncer}/metrics", timeout=30).text.splitlines()
        return float(next(line for line in lines if line.startswith(f"ratchet_adapters_{name} ")).split()[1])

    def refusals(self) -> int:
        """How often vLLM was asked to load something and failed, by its own log."""
        return self.vllm.log.read_text(errors="replace").count('POST /v1/load_lora_adapter HTTP/1.1" 500')


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("vllm-base")
    base = louder(tiny_model.build(folder / "quiet", num_heads=2), folder / "tiny")
    phase = {"batch_rows": 4, "epochs": 4, "learning_rate": 3e-2}
    return Config.model_validate(
        {
            "base_model": {"model": str(base), "dtype": "float32"},
            "registry": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
            "train_adapter": {"sft": phase, "dpo": phase, "max_tokens": 96, "pass_tokens": 192, "threads": 1},
        }
    )


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of `train_adapter`; the second of a rank that vLLM's flag does not take, and its server does."""
    made = []
    for rank, dpo in ((8, DPO), (12, [])):
        section = config.train_adapter
        section = section.model_copy(update={"lora": section.lora.model_copy(update={"r": rank})})
        settings = config.model_copy(update={"train_adapter": section})
        store, manifest = train(settings, tmp_path_factory.mktemp("trained") / "it", SFT, dpo)
        made.append(store.local(manifest.outputs["adapter"].uri))
    return made


@pytest.fixture(scope="module")
def running_stack(config: Config, trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    need_vllm()
    folder = tmp_path_factory.mktemp("stack")
    (folder / "lake").mkdir()
    lake = LocalStore(folder / "lake")
    vllm = VllmServer(Path(config.base_model.model), "tiny", folder)
    stack = Stack(lake, vllm, AdapterRef(), AdapterRef(), folder / "adapters", "", {})
    stack.champion, stack.candidate = (stack.publish(place, version) for version, place in enumerate(trained, 1))
    stack.record("promoted", stack.champion, AdapterRef())
    stack.record("requested", stack.candidate, stack.champion)
    with ExitStack() as services:
        services.callback(vllm.end)
        syncer = ("ratchet_pipelines.cli", "serve-syncer", "--lake", lake.root, "--pool-url", vllm.url, "--port", 0)
        limits = ("--folder", stack.folder, "--poll-s", POLL_S, "--max-adapters", MAX_ADAPTERS)
        stack.syncer = services.enter_context(service(folder / "syncer.log", *syncer, *limits))
        for name, adapter in {"base": AdapterRef(), "champion": stack.champion, "candidate": stack.candidate}.items():
            env = {f"RATCHET_ADAPTER_{key.upper()}": value for key, value in adapter.model_dump().items()}
            env |= {"RATCHET_LAKE": lake.root, "RATCHET_SECRET": SECRET, "RATCHET_POOL_URL": vllm.url}
            env |= {"RATCHET_PORT": "0", "RATCHET_FALLBACK": "base" if name == "candidate" else "none"}
            log = folder / f"router-{name}.log"
            stack.routers[name] = services.enter_context(service(log, "ratchet.router.app", **env))
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    """The stack with a healthy vLLM that holds both adapters, whatever the test before did to it."""
    running_stack.vllm.ensure()
    both = {str(running_stack.champion), str(running_stack.candidate)}
    wait_for(lambda: both <= set(running_stack.loaded()) and running_stack.is_ready())
    return running_stack


@pytest.fixture(scope="module")
def by_peft(config: Config, trained: list[Path]) -> Callable[[str, str], Answer]:
    """What PEFT says, greedily."""
    _, tokenizer = load_base(config.base_model)
    models: dict[str, Any] = {"base": load_base(config.base_model)[0]}
    for name, folder in zip(("champion", "candidate"), trained, strict=True):
        models[name] = PeftModel.from_pretrained(load_base(config.base_model)[0], str(folder)).eval()

    def say(name: str, question: str) -> Answer:
        chat = [{"role": "user", "content": question}]
        prompt = torch.tensor([tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]])
        with torch.inference_mode():
            whole = models[name].generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=TOKENS
            )
            told = whole[0, prompt.shape[1] :]
            logprobs = models[name](whole).logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
        ends = "stop" if told[-1] == tokenizer.eos_token_id else "length"
        return Answer(tuple(told.tolist()), tuple(logprobs.gather(1, told[:, None])[:, 0].tolist()), ends)

    return say


def ask(url: str, question: str, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0}
    body |= {"model": "assistant", "logprobs": True, "return_token_ids": True, **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)


def answer(response: httpx.Response) -> Answer:
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    logprobs = tuple(entry["logprob"] for entry in choice["logprobs"]["content"])
    return Answer(tuple(choice["token_ids"]), logprobs, choice["finish_reason"])


def test_every_adapter_says_what_peft_says_token_by_token(stack: Stack, by_peft: Callable[[str, str], Answer]) -> None:
    """All at once, so that base and adapters share batches."""
    asked = [(name, question) for question in QUESTIONS for name in stack.routers]
    with ThreadPoolExecutor(len(stack.routers) * 3) as threads:
        responses = list(threads.map(lambda pair: ask(stack.routers[pair[0]], pair[1]), asked))
    told = {}
    for (name, question), response in zip(asked, responses, strict=True):
        found, expected = answer(response), by_peft(name, question)
        assert (found.tokens, found.finish_reason) == (expected.tokens, expected.finish_reason), (name, question)
        assert found.logprobs == pytest.approx(expected.logprobs, abs=TOLERANCE)
        told[name, question] = found.tokens
    for name, other in (("base", "champion"), ("base", "candidate"), ("champion", "candidate")):
        assert any(told[name, question] != told[other, question] for question in QUESTIONS), (
            "adapters that say the same"
        )
    texts = {response.json()["choices"][0]["message"]["content"] for response in responses}
    recorded = {event.response: event for event in interactions(stack.lake)}
    assert texts <= set(recorded)
    digests = {event.adapter_digest for event in interactions(stack.lake)}
    assert {AdapterRef().digest, stack.champion.digest, stack.candidate.digest} <= digests


def test_cards_name_the_folder_and_so_the_digest(stack: Stack) -> None:
    for adapter in (stack.champion, stack.candidate):
        assert stack.loaded()[str(adapter)] == str(stack.folder / adapter.digest)
    assert (stack.metric("loaded"), stack.metric("missing")) == (len(stack.loaded()), 0)


def test_other_weights_under_the_champions_name_are_replaced(stack: Stack, by_peft: Callable[..., Answer]) -> None:
    other = {"lora_name": str(stack.champion), "lora_path": str(stack.files_of(stack.candidate)), "load_inplace": True}
    httpx.post(f"{stack.vllm.url}/v1/load_lora_adapter", json=other, timeout=60).raise_for_status()
    wait_for(lambda: stack.loaded().get(str(stack.champion)) == str(stack.folder / stack.champion.digest))
    said = answer(ask(stack.routers["champion"], QUESTIONS[0]))
    assert said.tokens == by_peft("champion", QUESTIONS[0]).tokens


def unload(stack: Stack, adapter: AdapterRef) -> None:
    httpx.post(f"{stack.vllm.url}/v1/unload_lora_adapter", json={"lora_name": str(adapter)}, timeout=60)


def with_settings(source: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(source, folder)
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(settings | changes))
    return folder


def with_tensors(source: Path, folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    shutil.copytree(source, folder)
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    return folder


def test_refused_candidates_leave_the_champion_loaded_and_the_pod_ready(stack: Stack, tmp_path: Path) -> None:
    source = stack.files_of(stack.champion)
    nan = with_tensors(source, tmp_path / "nan", lambda name, tensor: tensor * float("nan"))
    large = with_tensors(
        with_settings(source, tmp_path / "r32", r=32),
        tmp_path / "large",
        lambda name, tensor: torch.cat([tensor] * 4, 0 if "lora_A" in name else 1),
    )
    refused = [
        stack.publish(with_settings(source, tmp_path / "dora", use_dora=True), 11),
        stack.publish(nan, 12),
        stack.publish(source, 13, digest="0" * 64),
        stack.publish(large, 14),  # what vLLM itself refuses: a rank above its limit
    ]
    stack.record("rolled_back", stack.candidate, stack.champion)
    before = stack.refusals()
    for candidate in refused:
        stack.record("requested", candidate, stack.champion)
        wait_for(lambda: stack.metric("missing") >= 1)
        time.sleep(5 * POLL_S)
        assert str(candidate) not in stack.loaded()
        assert str(stack.champion) in stack.loaded()
        assert stack.is_ready()
        stack.record("rolled_back", candidate, stack.champion)
    assert stack.refusals() == before + 1, "what it refused was posted again at every look"
    gone = {candidate.digest for candidate in refused if candidate.digest != "0" * 64}
    wait_for(lambda: not gone & {path.name for path in stack.folder.iterdir()})
    stack.record("requested", stack.candidate, stack.champion)
    wait_for(lambda: str(stack.candidate) in stack.loaded())


def test_adapters_that_served_before_stay_as_long_as_there_is_room(stack: Stack, tmp_path: Path) -> None:
    def louder_by(factor: float) -> Callable[[str, torch.Tensor], torch.Tensor]:
        return lambda name, tensor: tensor * factor

    source, champions = stack.files_of(stack.champion), [stack.champion]
    stack.record("rolled_back", stack.candidate, stack.champion)
    for version in (21, 22, 23):
        folder = with_tensors(source, tmp_path / str(version), louder_by(1 + version / 100))
        champions.append(stack.publish(folder, version))
        stack.record("requested", champions[-1], champions[-2])
        wait_for(lambda: str(champions[-1]) in stack.loaded())
        stack.record("promoted", champions[-1], champions[-2])
    kept = champions[-MAX_ADAPTERS:]
    wait_for(lambda: set(stack.loaded()) == set(map(str, kept)))
    wait_for(lambda: {path.name for path in stack.folder.iterdir()} == {adapter.digest for adapter in kept})
    stack.record("promoted", stack.champion, champions[-1])
    stack.record("requested", stack.candidate, stack.champion)
    wait_for(lambda: {str(stack.champion), str(stack.candidate)} <= set(stack.loaded()))


def test_base_answers_where_the_pool_lost_the_candidate_and_the_lake_says_so(stack: Stack) -> None:
    deadline, fallback = time.monotonic() + 60, False
    while not fallback:  # until a question meets the moment between unloading and the syncer's next look
        assert time.monotonic() < deadline
        unload(stack, stack.candidate)
        before = len(interactions(stack.lake))
        response = ask(stack.routers["candidate"], QUESTIONS[0])
        assert response.status_code == 200
        fallback = any(event.adapter_digest == "base" for event in interactions(stack.lake)[before:])
        wait_for(lambda: str(stack.candidate) in stack.loaded())


def test_answers_in_flight_end_whole_when_the_pool_is_told_to_go(stack: Stack) -> None:
    """A drain: what was begun ends, and the process is gone soon after."""
    with ThreadPoolExecutor(2 * len(stack.routers)) as threads:
        asked = all_running(
            stack,
            lambda: [
                threads.submit(ask, url, QUESTIONS[0], max_tokens=450, ignore_eos=True, stream=is_streamed)
                for url in stack.routers.values()
                for is_streamed in (False, True)
            ],
        )
        stack.vllm.process.send_signal(signal.SIGTERM)
        responses = [future.result() for future in asked]
    assert [response.status_code for response in responses] == [200] * len(asked)
    for response in responses:
        assert "error" not in response.text
        assert '"length"' in response.text
    wait_for(lambda: stack.vllm.process.poll() is not None)


def all_running(stack: Stack, ask_all: Callable[[], list[Future[httpx.Response]]]) -> list[Future[httpx.Response]]:
    """Ask until vLLM works on all answers at one moment: on a busy machine some end before others begin."""
    asked = ask_all()
    while vllm_metric(stack, "num_requests_running") < len(asked):
        if any(future.done() for future in asked):
            wait(asked)
            asked = ask_all()
    return asked


def vllm_metric(stack: Stack, name: str) -> float:
    """The sum of a metric's series."""
    lines = httpx.get(f"{stack.vllm.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{"))


def test_a_killed_worker_breaks_its_answers_and_a_new_one_gets_the_adapters_back(
    stack: Stack, by_peft: Callable[..., Answer]
) -> None:
    with ThreadPoolExecutor(3) as threads:
        asked = all_running(
            stack,
            lambda: [
                threads.submit(ask, url, "Why?", max_tokens=450, ignore_eos=True) for url in stack.routers.values()
            ],
        )
        stack.vllm.worker().kill()
        responses = [future.result() for future in asked]
    assert any(response.status_code >= 500 for response in responses), "all had ended before"
    assert all(response.status_code in (200, 500, 502, 503, 504) for response in responses)
    wait_for(lambda: stack.vllm.process.poll() is not None)
    wait_for(lambda: stack.metric("loaded") == 0)
    assert stack.metric("missing") >= 2
    assert not stack.is_ready()
    assert ask(stack.routers["champion"], "Why?").status_code in (502, 503, 504)
    stack.vllm.ensure()
    wait_for(stack.is_ready)
    wait_for(lambda: {str(stack.champion), str(stack.candidate)} <= set(stack.loaded()))
    for name in stack.routers:
        assert answer(ask(stack.routers[name], "Why?")).tokens == by_peft(name, "Why?").tokens


def test_the_cpu_pools_metrics_are_vllms(stack: Stack, config: Config) -> None:
    """Every series of ours is one of theirs, with the same labels; and the finish reasons that both have."""
    with running(model_server(config)) as ours:
        for url, model in ((ours, config.base_model.model), (stack.vllm.url, "tiny")):
            body = {"model": model, "messages": [{"role": "user", "content": "Bread?"}], "max_tokens": 4}
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        found, theirs = series(ours), series(stack.vllm.url)
    assert found.keys() <= theirs.keys()
    assert {name: labels - theirs[name] for name, labels in found.items() if labels - theirs[name]} == {}
    assert set(LABELS) <= theirs["vllm:num_requests_running"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": ["e", "th"]},
        {"stop": "ca", "max_tokens": 60},
        {"logprobs": True, "top_logprobs": 3},
        {"frequency_penalty": 1.0},
        {"presence_penalty": 1.5, "logprobs": True},
        {"logit_bias": {"40": 5, "41": 5.5}},
    ],
)
def test_the_cpu_pool_answers_as_vllm(stack: Stack, config: Config, fields: dict[str, Any]) -> None:
    """Greedily, and without special tokens: vLLM's log-probabilities include the one that ends an answer."""
    banned = {"logit_bias": {str(token): -100.0 for token in range(3)} | fields.get("logit_bias", {})}
    with running(model_server(config)) as ours:
        for question in QUESTIONS:
            found, expected = (
                choice_of(
                    ask(url, question, model=model, **{"logprobs": False, **fields, **banned}, return_token_ids=None)
                )
                for url, model in ((ours, config.base_model.model), (stack.vllm.url, "tiny"))
            )
            # vLLM leaves out the half of a character at the end.
            assert found["message"]["content"].rstrip("\ufffd") == expected["message"]["content"].rstrip("\ufffd")
            assert found["finish_reason"] == expected["finish_reason"]
            pairs = zip(entries(found), entries(expected), strict=True)
            for one, other in pairs:
                assert one["logprob"] == pytest.approx(other["logprob"], abs=TOLERANCE)
                # It has no bytes for the first part of a character, and all of them for its last.
                assert other["bytes"][-len(one["bytes"]) :] in ([], one["bytes"])
                likeliest = [[entry["logprob"] for entry in each["top_logprobs"]] for each in (one, other)]
                assert likeliest[0] == pytest.approx(likeliest[1], abs=TOLERANCE)


def choice_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    return dict(choice)


def entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return list(choice["logprobs"]["content"]) if choice["logprobs"] else []


def series(url: str) -> dict[str, set[str]]:
    """Labels of each metric, with the values of `finished_reason`."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).text):
        for sample in family.samples:
            if sample.name.startswith("vllm:"):
                reason = sample.labels.get("finished_reason")
                found.setdefault(sample.name, set()).update(sample.labels, {f"={reason}"} if reason else ())
    return found
