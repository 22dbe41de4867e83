"""`ratchet compile kubeflow`: compile the pipelines."""

from pathlib import Path
from typing import Annotated

import typer

Image = Annotated[str, typer.Option(help="Image of the steps, by digest: registry/name@sha256:…")]
CudaImage = Annotated[str | None, typer.Option(help="Image of the steps for GPUs; with it, training asks for a GPU.")]
Out = Annotated[Path, typer.Option(help="Folder to write: ir/ to upload, kubernetes/ to commit.")]
Namespace = Annotated[str, typer.Option(help="Namespace of the Kubernetes objects.")]


def kubeflow(image: Image, out: Out, cuda_image: CudaImage = None, namespace: Namespace = "kubeflow") -> None:
    """Compile the Kubeflow pipelines: as IR for an upload, and as Kubernetes objects for GitOps."""
    from ratchet_pipelines.kubeflow.compile import compile_pipelines
    from ratchet_pipelines.kubeflow.pipelines import Images

    for file in compile_pipelines(Images(cpu=image, cuda=cuda_image), out, namespace):
        print(file)
