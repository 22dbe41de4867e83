"""`ratchet compile`: the loop written for another orchestrator."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet_pipelines.argo.settings import Settings

app = typer.Typer(name="compile", help="Write the loop for another orchestrator.", no_args_is_help=True)


@app.command()
def kubeflow(
    image: Annotated[str, typer.Option(help="Image of the steps, by digest: registry/name@sha256:…")],
    out: Annotated[Path, typer.Option(help="Folder to write: ir/ to upload, kubernetes/ to commit.")],
    cuda_image: Annotated[
        str | None, typer.Option(help="Image of the steps for GPUs; with it, training asks for a GPU.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the Kubernetes objects.")] = "kubeflow",
) -> None:
    """Compile the Kubeflow pipelines: as IR for an upload, and as Kubernetes objects for GitOps."""
    from ratchet_pipelines.kubeflow.compile import compile_pipelines
    from ratchet_pipelines.kubeflow.pipelines import Images

    for file in compile_pipelines(Images(cpu=image, cuda=cuda_image), out, namespace):
        print(file)


@app.command()
def argo(
    image: Annotated[str, typer.Option(help="Image of the steps, by digest: registry/name@sha256:…")],
    out: Annotated[Path, typer.Option(help="Folder to write the YAML files to.")],
    cuda_image: Annotated[
        str | None, typer.Option(help="Image of the steps for GPUs; with it, training asks for a GPU.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="When the loop starts: cron, in UTC.")] = Settings.schedule,
) -> None:
    """Compile the loop to Argo WorkflowTemplates and a CronWorkflow."""
    from ratchet_pipelines.argo.compile import write_documents

    for path in write_documents(Settings(image=image, cuda_image=cuda_image, schedule=schedule), out):
        print(path)
