"""`ratchet doctor`: look at everything that the first night needs, and say what to do about what is missing."""

import json
import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from ratchet.access import ROLES
from ratchet.release.reconciler.kubernetes import SERVICE_ACCOUNT
from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, one_of, settings
from ratchet_pipelines.console import say
from ratchet_pipelines.doctor import cluster, git, lake, machine, services, webhooks, workloads
from ratchet_pipelines.doctor.findings import Check, Finding, Site, examine

CHECKS: tuple[tuple[str, Check], ...] = (
    ("lake", lake.check_lake),
    ("rights", lake.check_rights),
    ("clock", lake.check_clock),
    ("mlflow", services.check_mlflow),
    ("settings", machine.check_settings),
    ("disk", machine.check_disk),
    ("gpu", machine.check_gpu),
    ("hub", services.check_hub),
    ("judge", services.check_judge),
    ("git", git.check_git),
    ("cluster", cluster.check_cluster),
    ("flagger", cluster.check_flagger),
    ("canary", webhooks.check_canary),
    ("workloads", workloads.check_workloads),
    ("account", cluster.check_release_account),
    ("gate", services.check_gate),
    ("prometheus", services.check_prometheus),
    ("pool", cluster.check_pool),
    ("pool.models", services.check_pool_answers),
    ("gpu.nodes", cluster.check_gpus),
    ("kubeflow", services.check_kubeflow),
)
COLOURS = {"ok": "green", "missing": "red", "warning": "yellow", "unchecked": "dim"}
Url = Annotated[str | None, typer.Option(metavar="URL")]


def doctor(
    lake: Lake = "lake",
    config: ConfigFile = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="Try the lake's folders with the rights of this role: the credentials at hand are its.",
            **one_of("role", lambda: ROLES, is_listed=False),
        ),
    ] = None,
    cluster_url: Annotated[
        str | None,
        typer.Option(
            "--cluster", metavar="URL", help="Kubernetes' API, as `kubectl proxy` serves it: http://127.0.0.1:8001."
        ),
    ] = None,
    prometheus_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Prometheus, where its address here is another than in the cluster."),
    ] = None,
    pool_url: Annotated[str | None, typer.Option(metavar="URL", help="The model server.")] = None,
    kubeflow_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Kubeflow Pipelines, to see its version.")
    ] = None,
    not_writable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="A repository into which the release's token must not be able to push; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that the first night needs: lake, MLflow, Git, cluster, gate, metrics, this machine.

    From a laptop or a pod. Each finding says what to do. It leaves nothing behind but MLflow's experiment, which the
    first training would make. Exit code 2 if anything is missing.
    """
    loaded = settings(config)
    named = cluster_url or loaded.release_adapter.cluster_url
    is_here = cluster_url is not None or SERVICE_ACCOUNT.is_dir() or (named or "").startswith("http://")
    site = Site(
        config=loaded,
        store=open_store(lake),
        now=time.time(),
        role=role,
        cluster_url=named if is_here else None,
        prometheus_url=prometheus_url,
        pool_url=pool_url,
        kubeflow_url=kubeflow_url,
        not_writable=tuple(not_writable or ()),
    )
    found = []
    for finding in examine(site, CHECKS):
        found.append(finding)
        if not as_json:
            _print(finding)
    counts = Counter(str(finding.state) for finding in found)
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in found], "counts": counts}, indent=1))
    else:
        say.print(", ".join(f"{counts[state]} {state}" for state in COLOURS))
    if counts["missing"]:
        raise typer.Exit(2)


def _print(finding: Finding) -> None:
    colour = COLOURS[finding.state]
    say.print(f"[{colour}]{finding.state:<9}[/] {finding.check:<22} {escape(finding.what)}", soft_wrap=True)
    if finding.do and finding.state != "ok":
        say.print(f"{'':<33}{escape(finding.do)}", soft_wrap=True)
