"""`ratchet compile`: write the loop for another orchestrator."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from ratchet_pipelines.argo.settings import Approval, Settings
from ratchet_pipelines.cli.options import OUT_FOLDER, one_of

app = typer.Typer(help="Write the loop as files for Kubeflow Pipelines or Argo Workflows.", no_args_is_help=True)
Image = Annotated[
    str, typer.Option("--image", metavar="IMAGE", help="Image of the steps, by digest: registry/name@sha256:…")
]
CudaImage = Annotated[
    str | None,
    typer.Option(
        "--cuda-image", metavar="IMAGE", help="Image of the steps for GPUs; with it, training requests a GPU."
    ),
]


@app.command()
def kubeflow(
    image: Image,
    out: Annotated[Path, OUT_FOLDER],
    cuda_image: CudaImage = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the Kubernetes objects.")] = "kubeflow",
) -> None:
    """Write the Kubeflow pipelines: ir/ to upload, and kubernetes/ to commit for GitOps."""
    from ratchet_pipelines.kubeflow.compile import compile_pipelines
    from ratchet_pipelines.kubeflow.pipelines import Images

    for file in compile_pipelines(Images(cpu=image, cuda=cuda_image), out, namespace):
        print(file)


@app.command()
def argo(
    image: Image,
    out: Annotated[Path, OUT_FOLDER],
    cuda_image: CudaImage = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="CRON",
            help=f"Start the loop at these times, in UTC; without it the schedule ({Settings.schedule}) is suspended.",
        ),
    ] = None,
    approval: Annotated[
        str, typer.Option(help="Who allows a release.", **one_of("approval", lambda: get_args(Approval)))
    ] = Settings.approval,
) -> None:
    """Write the loop as Argo WorkflowTemplates and a CronWorkflow.

    The CronWorkflow is suspended unless a schedule is given: a lake has one scheduler, and Airflow is the usual one.
    """
    from ratchet_pipelines.argo.compile import write_documents

    chosen = Settings(
        image=image,
        cuda_image=cuda_image,
        schedule=schedule or Settings.schedule,
        is_scheduled=schedule is not None,
        approval=cast(Approval, approval),
    )
    for path in write_documents(chosen, out):
        print(path)
