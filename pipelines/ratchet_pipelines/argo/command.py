"""`ratchet compile argo`: write the Argo Workflows templates."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet_pipelines.argo.settings import Settings


def compile_argo(
    image: Annotated[str, typer.Option(help="The step image; registry/name@sha256:... in production.")],
    out: Annotated[Path, typer.Option(help="Folder to write the YAML files to.")],
    cuda_image: Annotated[
        str | None, typer.Option(help="The same with CUDA, for the steps that use a GPU; without it none is asked for.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="When the loop starts: cron, in UTC.")] = Settings.schedule,
) -> None:
    """Compile the loop to Argo WorkflowTemplates and a CronWorkflow."""
    from ratchet_pipelines.argo.compile import write_documents

    for path in write_documents(Settings(image=image, cuda_image=cuda_image, schedule=schedule), out):
        print(path)
