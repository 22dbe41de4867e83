"""A tiny model that heeds its context, adapters that change what it says, and servers on free ports."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ratchet.config import BaseModelSource, Config
from ratchet.router.app import create_app
from ratchet.router.settings import RouterSettings
from ratchet.store import LocalStore
from support.http_server import Serve, running
from support.router_client import OPERATOR, SECRET, Start


@pytest.fixture(scope="session")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return louder(tiny_model, tmp_path_factory.mktemp("base") / "model")


def louder(model: Path, folder: Path) -> Path:
    """Copy the tiny model with louder layers: as it comes it repeats its last token, whatever was said before."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    loud = {
        name: torch.randn(weight.shape, generator=generator) * (0.3 if "proj" in name else 0.2)
        for name, weight in weights.items()
        if weight.dim() == 2
    }
    save_file({**weights, **loud}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def config(base: Path) -> Config:
    return Config(base_model=BaseModelSource(model=str(base), dtype="float32"))


@pytest.fixture(scope="session")
def adapters(config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapter folders, `left` and `right`, each unlike the other and the base."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: _adapter(config, folder / name, seed) for seed, name in enumerate(("left", "right"))}


def _adapter(config: Config, folder: Path, seed: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from ratchet.base_model import load_base

    torch.manual_seed(seed)
    model, _ = load_base(config.base_model)
    wrapped = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj", "up_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve any app until the test ends; its address."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))


@pytest.fixture(scope="session")
def pool(config: Config, adapters: dict[str, Path]) -> Iterator[str]:
    """A model server that holds `left@v1` and `right@v1`."""
    from ratchet.inference.server import create_app

    with running(create_app(config)) as url:
        for name, folder in adapters.items():
            body = {"lora_name": f"{name}@v1", "lora_path": str(folder)}
            httpx.post(f"{url}/v1/load_lora_adapter", json=body).raise_for_status()
        yield url


@pytest.fixture
def start(serve: Callable[[FastAPI], str], lake: LocalStore, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start a router before the model server, or before another pool; a client of it."""
    clients: list[httpx.Client] = []

    def start(store: LocalStore = lake, **settings: Any) -> httpx.Client:
        known = {"lake": store.root, "secret": SECRET, **settings}
        known = known if "pool_url" in known else {**known, "pool_url": request.getfixturevalue("pool")}
        url = serve(create_app(RouterSettings(**known), store))
        clients.append(httpx.Client(base_url=url, timeout=60, headers=OPERATOR))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
