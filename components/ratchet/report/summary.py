"""Summarise a run of the loop in a paragraph, as a pure function of its manifests."""

from collections.abc import Mapping

from ratchet.manifest import Manifest

STEP_NAMES = {
    "collect_triplets": "Collect",
    "validate_triplets": "Validate",
    "build_datasets": "Build",
    "train_adapter": "Train",
    "evaluate_adapter": "Evaluate",
    "register_adapter": "Register",
    "release_adapter": "Release",
}
VERDICTS = {
    "pass": "Offline, on votes held out from training, it was found no worse than the incumbent",
    "fail": "Offline, on votes held out from training, it was found worse than the incumbent",
    "insufficient": "Offline, the held-out votes could not decide",
}
OUTCOMES = {
    "promoted": "It was promoted and now serves everyone",
    "restored": "An operator went back to it, and it serves everyone",
    "rolled_back": "It was rolled back; the champion serves as before",
    "refused": "It was not released",
    "no_target": "It was not released, since no place to release to is configured",
}


def summarise(manifests: Mapping[str, Manifest]) -> str:
    """Return a sentence for each step that ran; `manifests` are by step name."""
    sentences = [_data(manifests), _training(manifests), _evaluation(manifests), _release(manifests)]
    return " ".join(filter(None, sentences)) or "No step has run yet."


def _data(manifests: Mapping[str, Manifest]) -> str:
    if "build_datasets" not in manifests or "triplets" not in manifests["build_datasets"].flows:
        return ""
    flow = manifests["build_datasets"].flows["triplets"]
    sentence = f"{flow.rows_out:,} of {flow.rows_in:,} valid votes shaped at least one training row"
    if not flow.drops:
        return f"{sentence}."
    reason, most = max(flow.drops.items(), key=lambda drop: (drop[1], drop[0]))
    return f"{sentence}; the most common reason to drop one was “{reason.replace('_', ' ')}” ({most:,})."


def _training(manifests: Mapping[str, Manifest]) -> str:
    if "train_adapter" not in manifests:
        return ""
    facts = manifests["train_adapter"].facts
    sentence = f"An adapter was trained on {facts.get('sft_rows', 0):,} answers to imitate and"
    sentence += f" {facts.get('dpo_pairs', 0):,} pairs of a better and a worse answer"
    losses = [row["loss"] for row in facts.get("history", []) if row["phase"] == "dpo"]
    return (
        f"{sentence} (preference loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last)."
        if losses
        else f"{sentence}."
    )


def _evaluation(manifests: Mapping[str, Manifest]) -> str:
    if "evaluate_adapter" not in manifests:
        return ""
    facts = manifests["evaluate_adapter"].facts
    return _because(VERDICTS.get(facts.get("verdict", ""), "It was evaluated offline"), facts.get("why", ""))


def _release(manifests: Mapping[str, Manifest]) -> str:
    if "release_adapter" not in manifests:
        return ""
    facts = manifests["release_adapter"].facts
    sentence = _because(OUTCOMES.get(facts.get("outcome", ""), "A release was tried"), facts.get("why", ""))
    timeline = facts.get("timeline", [])
    votes = timeline[-1]["votes"] if timeline else {}
    if not votes.get("canary"):
        return sentence
    seen = f"{votes['canary']['up']} of {votes['canary']['n']} votes on the candidate were up"
    if votes.get("primary"):
        seen += f", against {votes['primary']['up']} of {votes['primary']['n']} on the champion"
    return f"{sentence} In {timeline[-1]['t']:.0f} seconds of canary, {seen}."


def _because(outcome: str, why: str) -> str:
    return f"{outcome}: {why.rstrip('.')}." if why else f"{outcome}."
