"""The step from end to end on the tiny model: bytes, drops, curves, options."""

import json
import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from ratchet.adapter_files import check_servable
from ratchet.base_model import revision
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.registry.mlflow_store import connect
from ratchet.step import read_manifest, run_step
from ratchet.store import Store, open_store
from ratchet.training import log_probs, trainer
from ratchet.training.train_adapter import STEP, fresh_adapter, plan_training
from support.trainings import DPO, SFT, STEPS, curve, publish, train, weights


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Manifest]:
    return train(settings(), tmp_path_factory.mktemp("trained") / "first")


def test_same_inputs_in_another_folder_give_the_same_bytes(trained, settings, tmp_path):
    _, again = train(settings(), tmp_path / "second")
    assert again.outputs == trained[1].outputs


def test_another_seed_gives_another_adapter(trained, settings, tmp_path):
    config = settings().model_copy(update={"seed": 1})
    _, other = train(config, tmp_path / "other")
    assert other.outputs["adapter"].digest != trained[1].outputs["adapter"].digest


def test_adapter_folder_is_servable_and_names_no_path(trained, tiny_model):
    store, manifest = trained
    folder = store.local(manifest.outputs["adapter"].uri)
    check_servable(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.json",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    text = (folder / "adapter_config.json").read_text() + (folder / "adapter.json").read_text()
    assert str(tiny_model.parent) not in text
    assert json.loads(text[: text.index("}\n{") + 1])["base_model_name_or_path"] == tiny_model.name


def test_peft_loads_the_adapter_and_it_changes_the_model(trained, tiny_model):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    store, manifest = trained
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(3, 20)[None]
    plain = base(ids).logits
    adapted = PeftModel.from_pretrained(base, store.local(manifest.outputs["adapter"].uri))(ids).logits
    assert not torch.allclose(plain, adapted, atol=1e-3)


@pytest.mark.parametrize("phase", ["sft", "dpo"])
def test_training_lowers_the_loss(phase, trained):
    losses = [entry["loss"] for entry in trained[1].facts["history"] if entry["phase"] == phase]
    assert losses[-1] < losses[0]


def test_every_step_is_in_mlflow_once(trained, settings):
    store, manifest = trained
    client = connect(settings(), store)
    run = client.get_run(manifest.facts["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    for phase in ("sft", "dpo"):
        logged = [metric.step for metric in client.get_metric_history(run.info.run_id, f"{phase}/loss")]
        assert logged == [entry["step"] for entry in manifest.facts["history"] if entry["phase"] == phase] == STEPS
    assert run.data.params["lora.r"] == "8"


def test_scratch_is_gone_after_publishing(trained):
    store, _ = trained
    assert not list(store.local("work/train_adapter").iterdir())


def test_every_row_left_out_has_its_reason(settings, tmp_path):
    empty = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}]}
    long = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "word " * 200, "rejected": "no"}
    phase = {"max_rows": 6, "batch_rows": 4}
    config = settings(dpo=phase)
    _, manifest = train(config, tmp_path / "drops", [*SFT, empty], [*DPO, long])
    flow = manifest.flows["rows"]
    assert (flow.rows_in, flow.rows_out) == (26, 18)
    assert flow.drops == {"empty": 1, "too_long": 1, "over_max_rows": 6}


def test_plan_says_beforehand_what_the_training_did(trained, settings, tmp_path):
    store = open_store(tmp_path / "lake")
    dataset = publish(store, tmp_path / "dataset", SFT, DPO)
    planned = plan_training(settings(), {"build_datasets": dataset}, store)
    facts = trained[1].facts
    assert planned == {**facts["plan"], "drops": {"sft": {}, "dpo": {}}}
    assert [planned["phases"][phase]["steps"] for phase in ("sft", "dpo")] == [len(STEPS)] * 2
    assert facts["effective_sample_size"]["dpo"] == 12


def test_reference_of_the_base_model_is_computed_once_for_all_runs(settings, tmp_path):
    store = open_store(tmp_path / "lake")
    inputs = {"build_datasets": publish(store, tmp_path / "dataset", [], DPO)}
    for rate in (1e-2, 1e-3):
        run_step(STEP, settings(dpo={"batch_rows": 12, "learning_rate": rate}), inputs, store)
    assert len(list(store.list("adapters"))) == 6
    assert len(list(store.list("references"))) == 1


def test_the_reference_is_computed_in_the_passes_of_the_training(settings, tmp_path, monkeypatch):
    """In bfloat16 what else is in a pass rounds a row's log-probabilities otherwise, which is no preference."""
    passes = {log_probs: [], trainer: []}
    for module, seen in passes.items():
        compute = module.predicting_states
        monkeypatch.setattr(
            module,
            "predicting_states",
            lambda model, batch, compute=compute, seen=seen: (
                seen.append(batch["input_ids"].tolist()) or compute(model, batch)
            ),
        )
    _, manifest = train(settings(sft={"epochs": 0}, dpo={"batch_rows": 4, "warmup_share": 0}), tmp_path / "passes")
    assert len(manifest.facts["history"]) > 2
    assert passes[log_probs] == passes[trainer]
    assert manifest.facts["history"][0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("skipped", ["sft", "dpo"])
def test_phase_without_rows_is_skipped_and_said_so(skipped, settings, tmp_path):
    rows = {"sft": SFT, "dpo": DPO} | {skipped: []}
    _, manifest = train(settings(), tmp_path / "skip", rows["sft"], rows["dpo"])
    assert manifest.facts["skipped"] == [skipped]
    assert {entry["phase"] for entry in manifest.facts["history"]} == {"sft", "dpo"} - {skipped}


def test_nothing_to_train_on_is_the_users_to_mend(settings, tmp_path):
    with pytest.raises(UserError, match="nothing to train on"):
        train(settings(), tmp_path / "none", [], [])


def test_changed_base_model_trains_anew(trained, settings):
    store, _ = trained
    config = settings()
    assert STEP.sources(config, {}, store) == {"base": revision(config.base_model)}


def test_early_stop_publishes_the_best_adapter_that_it_saw(settings, tmp_path):
    import torch

    kept, ends, found = [], [], []
    for patience in (2, 4):
        stop = {"share": 0.25, "every_steps": 1, "patience": patience}
        dpo = {"batch_rows": 4, "epochs": 8, "learning_rate": 1e-2, "stop": stop}
        store, manifest = train(settings(sft={"epochs": 0}, dpo=dpo), tmp_path / f"{patience}")
        kept.append(manifest.facts["kept"]["step"])
        ends.append(max(entry["step"] for entry in manifest.facts["history"]))
        found.append(weights(store, manifest))
    assert kept[0] == kept[1] > 0
    assert ends == [kept[0] + 2, kept[0] + 4]
    assert manifest.flows["rows"].drops == {"over_max_rows": 12, "watched": 3}
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_drift_over_budget_leaves_the_adapter_as_it_was(settings, tmp_path):
    stop = {"share": 0.25, "every_steps": 1, "max_kl": 1e-9}
    store, manifest = train(settings(sft={"epochs": 0}, dpo={"batch_rows": 4, "stop": stop}), tmp_path / "budget")
    assert (manifest.facts["kept"]["step"], len(manifest.facts["history"])) == (0, 1)
    assert not any(tensor.any() for name, tensor in weights(store, manifest).items() if "lora_B" in name)


def test_dora_is_trained_for_peft_and_would_not_be_served(settings, tiny_model, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValidationError, match="vLLM refuses adapters with DoRA"):
        settings(lora={"dora": True})
    store, manifest = train(settings(lora={"dora": True}, target="peft"), tmp_path / "dora")
    folder = store.local(manifest.outputs["adapter"].uri)
    assert any("magnitude" in name for name in weights(store, manifest))
    losses = [entry["loss"] for entry in manifest.facts["history"] if entry["phase"] == "sft"]
    assert losses[-1] < losses[0]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        adapted, plain = model(ids).logits, model.unload()(ids).logits
    assert not torch.allclose(adapted, plain, atol=1e-3)
    with pytest.raises(UserError, match="use_dora"):
        check_servable(folder)


def test_four_bits_need_a_gpu_and_say_so(settings):
    with pytest.raises(ValidationError, match="needs device: cuda"):
        settings(quantize="nf4")
    if not torch_sees_a_gpu():
        with pytest.raises(UserError, match="CUDA is not available"):
            fresh_adapter(settings(quantize="nf4", device="cuda"))


def torch_sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def test_more_processes_than_were_started_are_refused(settings, tmp_path):
    with pytest.raises(UserError, match="processes = 2, but 1 started"):
        train(settings(processes=2), tmp_path / "two")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_train_what_one_does(settings, tmp_path):
    """Through the launcher that `accelerate launch` starts, on CPUs. Each step's passes fall to either process."""
    import torch

    section = {"pass_tokens": 96}  # several passes a step, and an odd number
    store, alone = train(settings(**section), tmp_path / "alone")
    config = settings(**section, processes=2)
    (tmp_path / "ratchet.yaml").write_text(config.model_dump_json())
    dataset = publish(store, tmp_path / "dataset", SFT, DPO)
    store.create("dataset.json", dataset.model_dump_json().encode())
    command = ["torch.distributed.run", "--nproc-per-node=2", "-m", "ratchet_pipelines.cli", "train_adapter"]
    given = ["--config", tmp_path / "ratchet.yaml", "--lake", store.root, "--in", "build_datasets=dataset.json"]
    done = subprocess.run([sys.executable, "-m", *command, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (uri,) = done.stdout.split()
    together = read_manifest(store, uri)
    assert [loss for *_, loss in curve(together)] == pytest.approx([loss for *_, loss in curve(alone)], rel=1e-4)
    torch.testing.assert_close(weights(store, together), weights(store, alone), rtol=1e-3, atol=1e-4)
