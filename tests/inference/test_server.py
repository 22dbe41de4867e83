import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.config import Config
from ratchet.inference.metrics import FINISH_REASONS
from ratchet.inference.openai_api import NEUTRAL


@pytest.fixture(scope="module")
def client(pool: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=pool, timeout=60) as client:
        yield client


def body(model: str, **fields: Any) -> dict[str, Any]:
    asked = {"model": model, "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 12}
    return {**asked, "temperature": 0, **fields}


def ask(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body(model, **fields))


def text(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["choices"][0]["message"]["content"])


def test_models_are_the_base_and_its_adapters(client: httpx.Client, config: Config) -> None:
    cards = {card["id"]: card["parent"] for card in client.get("/v1/models").json()["data"]}
    assert cards == {
        config.base_model.model: None,
        "left@v1": config.base_model.model,
        "right@v1": config.base_model.model,
    }
    assert client.get("/health").status_code == 200


def test_concurrent_requests_to_all_models_answer_as_each_alone(client: httpx.Client, config: Config) -> None:
    models = [config.base_model.model, "left@v1", "right@v1"]
    alone = [text(ask(client, model)) for model in models]
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda model: text(ask(client, model)), models * 4))
    assert together == alone * 4
    assert len(set(alone)) == 3


def test_completion_has_openai_shape(client: httpx.Client) -> None:
    completion = ask(client, "left@v1", max_tokens=5).json()
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "left@v1"
    choice, usage = completion["choices"][0], completion["usage"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["role"] == "assistant"
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == 5 + usage["prompt_tokens"]


def test_stream_says_what_the_completion_says(client: httpx.Client) -> None:
    whole = text(ask(client, "right@v1"))
    stream = ask(client, "right@v1", stream=True, stream_options={"include_usage": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in stream.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == whole
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 12


def test_stream_begins_before_the_answer_is_whole_and_stops_when_nobody_listens(client: httpx.Client) -> None:
    before = finished(client, "abort")
    with client.stream("POST", "/v1/chat/completions", json=body("left@v1", max_tokens=400, stream=True)) as response:
        lines = (line for line in response.iter_lines() if "content" in line and '""' not in line)
        next(lines)
        assert num_running(client) == 1
    while finished(client, "abort") == before:
        time.sleep(0.01)
    while num_running(client):
        time.sleep(0.01)


def finished(client: httpx.Client, reason: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    found = (line for line in lines if line.startswith("vllm:request_success_total") and f'="{reason}"' in line)
    return float(next(found, "0").split()[-1])


def test_seed_repeats_a_sampled_answer(client: httpx.Client) -> None:
    answers = [text(ask(client, "left@v1", temperature=1, seed=seed)) for seed in (3, 3, 4)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "nobody"}, 404, "`nobody` does not exist"),
        ({"messages": []}, 400, "messages"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 600}, 400, "holds 512 tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_k": 5}, 400, "top_k is not supported"),
        ({"min_p": 0.1}, 400, "min_p is not supported"),
        ({"ignore_eos": True}, 400, "ignore_eos is not supported"),
        ({"repetition_penalty": 1.1}, 400, "repetition_penalty is not supported"),
        ({"stop_token_ids": [2]}, 400, "stop_token_ids is not supported"),
        ({"min_tokens": 5}, 400, "min_tokens is not supported"),
        ({"chat_template": "{{ messages }}"}, 400, "chat_template is not supported"),
        ({"a_field_of_tomorrow": 1}, 400, "a_field_of_tomorrow is not supported"),
        ({"stream_options": {"continuous_usage_stats": True}}, 400, "continuous_usage_stats"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages.0.content",
        ),
    ],
)
def test_request_that_cannot_be_served_says_why(
    client: httpx.Client, fields: dict[str, Any], status: int, said: str
) -> None:
    response = client.post("/v1/chat/completions", json={**body("left@v1"), **fields})
    assert response.status_code == status
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize("place", ["content", "model", "field", "user"])
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(client: httpx.Client, place: str) -> None:
    texts = {name: "a\ud800b" if name == place else "x" for name in ("content", "model", "field", "user")}
    messages = [{"role": "user", "content": texts["content"]}]
    asked = {"model": texts["model"], "messages": messages, "user": texts["user"], texts["field"]: None}
    body = json.dumps(asked)  # escaped, as a client in JavaScript sends it
    response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    body = json.dumps({"lora_name": "a\ud800b", "lora_path": "/x"})
    response = client.post("/v1/load_lora_adapter", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert client.get("/v1/models").status_code == 200


def test_fields_that_ask_for_nothing_and_parts_of_text_are_taken(client: httpx.Client) -> None:
    plain = text(ask(client, "left@v1"))
    neutral = {name: values[0] for name, values in NEUTRAL.items()}
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]}]
    assert text(ask(client, "left@v1", messages=parts, user="u", metadata={"tenant": "t"}, **neutral)) == plain
    called = {"role": "assistant", "content": None, "tool_calls": []}
    messages = [{"role": "user", "content": "Why?"}, called, {"role": "user", "content": "Bread?"}]
    assert ask(client, "left@v1", messages=messages).status_code == 200


def load(client: httpx.Client, name: str, folder: Path) -> httpx.Response:
    return client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})


def unload(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def test_adapter_is_loaded_once_and_unloaded_once(client: httpx.Client, adapters: dict[str, Path]) -> None:
    assert load(client, "third@v1", adapters["left"]).status_code == 200
    assert text(ask(client, "third@v1")) == text(ask(client, "left@v1"))
    assert load(client, "third@v1", adapters["right"]).status_code == 400
    named = {"lora_name": "third@v1", "lora_path": str(adapters["right"]), "load_inplace": True}
    assert client.post("/v1/load_lora_adapter", json=named).status_code == 400
    assert unload(client, "third@v1").status_code == 200
    assert ask(client, "third@v1").status_code == 404
    assert unload(client, "third@v1").status_code == 404


def test_name_loaded_anew_answers_with_the_new_weights(client: httpx.Client, adapters: dict[str, Path]) -> None:
    load(client, "fourth@v1", adapters["left"])
    with ThreadPoolExecutor(1) as threads:
        before = threads.submit(ask, client, "fourth@v1", max_tokens=60)
        while num_running(client) == 0:
            time.sleep(0.01)
        unload(client, "fourth@v1")
        load(client, "fourth@v1", adapters["right"])
        assert text(ask(client, "fourth@v1")) == text(ask(client, "right@v1"))
        assert text(before.result()) == text(ask(client, "left@v1", max_tokens=60))
    unload(client, "fourth@v1")


def num_running(client: httpx.Client) -> float:
    line = next(line for line in client.get("/metrics").text.splitlines() if line.startswith("vllm:num_requests_run"))
    return float(line.split()[-1])


def with_config(folder: Path, source: Path, **settings: Any) -> Path:
    shutil.copytree(source, folder)
    config = json.loads((source / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return folder


def test_adapter_that_cannot_be_served_is_refused_and_harms_nobody(
    client: httpx.Client, config: Config, adapters: dict[str, Path], tmp_path: Path
) -> None:
    before = text(ask(client, config.base_model.model))
    broken = with_config(tmp_path / "broken", adapters["left"])
    (broken / "adapter_model.safetensors").write_bytes(b"not weights")
    folders = {
        tmp_path / "absent": "missing",
        broken: "cannot be read",
        with_config(tmp_path / "dora", adapters["left"], use_dora=True): "use_dora",
        with_config(tmp_path / "rank", adapters["left"], r=16): "not of rank 16",
        with_config(tmp_path / "fewer", adapters["left"], target_modules=["q_proj"]): "target_modules",
        with_config(tmp_path / "elsewhere", adapters["left"], target_modules=["nowhere"]): "target_modules",
    }
    for folder, reason in folders.items():
        response = load(client, "bad@v1", folder)
        assert response.status_code == 400
        assert reason in response.json()["error"]["message"]
    assert ask(client, "bad@v1").status_code == 404
    assert text(ask(client, config.base_model.model)) == before


def test_metrics_carry_vllms_names(client: httpx.Client) -> None:
    ask(client, "left@v1")
    metrics = client.get("/metrics").text
    for name in (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:kv_cache_usage_perc",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:request_time_per_output_token_seconds_bucket",
        "vllm:request_queue_time_seconds_bucket",
        "vllm:request_prefill_time_seconds_bucket",
        "vllm:request_decode_time_seconds_bucket",
        "vllm:lora_requests_info",
    ):
        assert f"{name}{{" in metrics
    for reason in FINISH_REASONS:
        assert f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name=' in metrics
