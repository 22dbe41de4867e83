"""With equal weights and no flips our losses and gradients are TRL's."""

import json

import pytest
import torch

from ratchet.config import Phase
from ratchet.store import open_store
from ratchet.training.batches import Layout, collate, first_passes, passes, plan
from ratchet.training.checkpoints import CheckpointFolder
from ratchet.training.log_probs import completion_log_probs, with_reference
from ratchet.training.objectives import Objective, dpo_objective, kto_objective, sft_objective
from ratchet.training.tokenization import dpo_rows, kto_rows, sft_rows
from ratchet.training.trainer import PhaseRun, train_phase

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL announces its own next major version
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
QUESTIONS = ["What is the capital of France?", "Tell me about bread."]
GOOD, BAD = ["Paris is the capital of France.", "Bread is flour, water, salt."], ["No.", "It is blue because of bees."]


def rendered(tokenizer) -> list[str]:
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]


def arguments(tmp_path) -> dict:
    return {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }


LAYOUT = Layout(packing="shared", pass_tokens=512, pad_id=2)


def ours(model, rows, objective: Objective) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = collate(rows, LAYOUT)
    loss = objective.loss(completion_log_probs(model, batch), batch) / objective.mass(batch)
    return loss, slopes(model, loss)


def theirs(trainer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    return loss, slopes(trainer.model, loss)


def slopes(model, loss) -> dict[str, torch.Tensor]:
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and "default" in name}


def trained_once(adapted) -> tuple:
    """A model whose LoRA weights have moved on from those of seed 0, and what they are now."""
    model, tokenizer = adapted(seed=0)
    return model, tokenizer, {name: p.detach().clone() for name, p in adapted(seed=1)[0].named_parameters()}


def referred(prepared, rows, tmp_path) -> list:
    return with_reference(
        prepared(seed=0)[0],
        rows,
        together=passes(rows, LAYOUT),
        layout=LAYOUT,
        store=open_store(tmp_path / "lake"),
        origin={},
    )


def test_sft_is_trls(adapted, prepared, tmp_path):
    from trl import SFTConfig, SFTTrainer

    from datasets import Dataset

    model, tokenizer = adapted()
    rows = [{"prompt": p, "completion": good} for p, good in zip(rendered(tokenizer), GOOD, strict=True)]
    config = SFTConfig(completion_only_loss=True, **arguments(tmp_path))
    trainer = SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    expected = theirs(trainer)
    table = [
        {"messages": json.dumps([{"role": "user", "content": q}, {"role": "assistant", "content": a}]), "weight": 0.5}
        for q, a in zip(QUESTIONS, GOOD, strict=True)
    ]
    actual = ours(prepared()[0], sft_rows(table, tokenizer), sft_objective())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo"])
def test_dpo_is_trls(kind, adapted, prepared, tmp_path):
    from trl import DPOConfig, DPOTrainer

    from datasets import Dataset

    model, tokenizer, moved = trained_once(adapted)
    texts = zip(rendered(tokenizer), GOOD, BAD, strict=True)
    pairs = Dataset.from_list([{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in texts])
    config = DPOConfig(beta=0.3, loss_type=[kind], **arguments(tmp_path / "trl"))
    trainer = DPOTrainer(model, args=config, train_dataset=pairs, processing_class=tokenizer)
    model.load_state_dict(moved, strict=False)  # the policy has moved; TRL's copy, the reference, has not
    expected = theirs(trainer)
    table = [
        {"prompt": json.dumps([{"role": "user", "content": q}]), "chosen": good, "rejected": bad}
        | {"weight": 1.0, "flip_probability": 0.0, "chosen_ends": True, "rejected_ends": True}
        for q, good, bad in zip(QUESTIONS, GOOD, BAD, strict=True)
    ]
    rows = referred(prepared, dpo_rows(table, tokenizer), tmp_path)
    actual = ours(prepared(seed=1)[0], rows, dpo_objective(kind, beta=0.3))
    assert abs(expected[0] - ours(prepared(seed=0)[0], rows, dpo_objective(kind, beta=0.3))[0]) > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_packed_training_runs_down_trls_loss_curve(adapted, prepared, tmp_path):
    from trl import DPOConfig, DPOTrainer

    from datasets import Dataset

    model, tokenizer = adapted(seed=0)
    pairs = [
        (q, p, good, bad) for q, p in zip(QUESTIONS, rendered(tokenizer), strict=True) for good in GOOD for bad in BAD
    ]
    table = [
        {"prompt": json.dumps([{"role": "user", "content": q}]), "chosen": good, "rejected": bad}
        | {"weight": 1.0, "flip_probability": 0.0, "chosen_ends": True, "rejected_ends": True}
        for q, _, good, bad in pairs
    ]
    ours, _ = prepared(seed=0)
    store = open_store(tmp_path / "lake")
    phase = Phase(epochs=2, batch_rows=2, learning_rate=1e-2, warmup_share=0.0)
    rows = dpo_rows(table, tokenizer)
    steps = plan(rows, batch_rows=2, epochs=2, seed=0, layout=LAYOUT)
    rows = with_reference(ours, rows, together=first_passes(steps), layout=LAYOUT, store=store, origin={})
    run = PhaseRun(
        rows=rows,
        steps=steps,
        layout=LAYOUT,
        objective=dpo_objective("sigmoid", beta=0.3),
        phase=phase,
        place=CheckpointFolder(store, "dpo"),
        checkpoint_steps=100,
        device="cpu",
    )
    curve = train_phase(ours, run)
    order = [index for step in steps for chosen in step for index in chosen]
    data = Dataset.from_list(
        [dict(zip(("prompt", "chosen", "rejected"), pairs[index][1:], strict=True)) for index in order]
    )
    config = DPOConfig(
        beta=0.3,
        num_train_epochs=1,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        logging_steps=1,
        train_sampling_strategy="sequential",
        save_strategy="no",
        **arguments(tmp_path / "trl"),
    )
    trainer = DPOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert expected[-1] < expected[0] - 0.1
    assert [entry["loss"] for entry in curve] == pytest.approx(expected, rel=1e-3)


def test_kto_is_trls(adapted, prepared, tmp_path):
    from trl import KTOConfig, KTOTrainer

    from datasets import Dataset

    model, tokenizer, moved = trained_once(adapted)
    votes = [(q, p, a, like) for q, p, a, like in zip(QUESTIONS, rendered(tokenizer), GOOD, [True, False], strict=True)]
    data = Dataset.from_list([{"prompt": p, "completion": a, "label": like} for _, p, a, like in votes])
    config = KTOConfig(beta=0.3, **arguments(tmp_path / "trl"))
    trainer = KTOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    model.load_state_dict(moved, strict=False)
    expected = theirs(trainer)
    table = [
        {"prompt": json.dumps([{"role": "user", "content": q}]), "completion": a, "label": like, "weight": 1.0}
        for q, _, a, like in votes
    ]
    rows = referred(prepared, kto_rows(table, tokenizer), tmp_path)
    actual = ours(prepared(seed=1)[0], rows, kto_objective(beta=0.3))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
