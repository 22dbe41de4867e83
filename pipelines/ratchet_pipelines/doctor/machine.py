"""This machine: disk, a GPU and what compiles its kernels, and settings that contradict each other."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ratchet_pipelines.doctor.findings import Finding, Site

MIN_FREE_GIB = 5.0  # a base model in copies, a table being written
GIB = 2**30
COMMIT = re.compile(r"[0-9a-f]{40}")
MARGIN_S = 3600.0  # for Argo CD's sync, pods that become ready, and Flagger's ticks


def check_disk(site: Site) -> Iterator[Finding]:
    """Room for what steps write to the folder for temporary files."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free / GIB
    if free < MIN_FREE_GIB:
        do = f"free some, or set TMPDIR to a folder with {MIN_FREE_GIB:.0f} GiB: steps keep copies of models there"
        yield Finding(check="disk", state="missing", what=f"{free:.1f} GiB free in {folder}", do=do)
    else:
        yield Finding(check="disk", state="ok", what=f"{free:.0f} GiB free in {folder}")


def check_gpu(site: Site) -> Iterator[Finding]:
    """A GPU where one is configured and no cluster brings it, and the C compiler that its kernels are made with."""
    if site.config.train_adapter.device != "cuda":
        return
    if site.cluster_url is not None:
        what = "training asks for a GPU, and the cluster has it"
        yield Finding(check="gpu", state="unchecked", what=what, do="run `ratchet doctor` in a pod of the CUDA image")
        return
    import torch

    if torch.cuda.is_available():
        yield Finding(check="gpu", state="ok", what=torch.cuda.get_device_name())
    else:
        do = "run where one is, name the cluster with --cluster, or set the steps' device to cpu"
        yield Finding(check="gpu", state="missing", what="train_adapter.device = cuda, and torch sees no GPU", do=do)
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        do = "install gcc and libc6-dev: Triton compiles its launcher at run time"
        yield Finding(check="compiler", state="missing", what="no C compiler", do=do)


def check_settings(site: Site) -> Iterator[Finding]:
    """What ratchet.yaml says that will only hurt later."""
    base, release, gate = site.config.base_model, site.config.release_adapter, site.config.gate
    is_on_hub = "/" in base.model and not Path(base.model).exists()
    if is_on_hub and not COMMIT.fullmatch(base.revision):
        do = "write the commit's 40 digits: a name may move, and caches and keys hold the name"
        what = f"base_model.revision = {base.revision} names no commit"
        yield Finding(check="settings.revision", state="warning", what=what, do=do)
    needed = gate.max_minutes * 60 + MARGIN_S
    if release.git_url is not None and release.timeout_s < needed:
        what = f"release_adapter.timeout_s = {release.timeout_s:g}, and a canary may take {gate.max_minutes:g} min"
        do = f"set it to {needed:g} or more: the step gives up before the gate has decided, and ends as failed"
        yield Finding(check="settings.timeout", state="missing", what=what, do=do)
    if release.git_url is not None and release.approval == "none":
        what = "release_adapter.approval = none: a passing verdict releases, and no person is asked"
        yield Finding(check="settings.approval", state="warning", what=what, do="set it to person, if one should be")
