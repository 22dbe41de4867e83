"""Write the pipelines to files: as IR for an upload, and as Kubernetes objects for GitOps. Equal input, equal bytes."""

import re
from pathlib import Path

from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from ratchet.digest import digest_bytes
from ratchet.errors import UserError
from ratchet_pipelines.kubeflow.pipelines import Images, Pipeline, build_pipelines


def compile_pipelines(images: Images, out: Path, namespace: str) -> list[Path]:
    """Write `ir/NAME.yaml` and `kubernetes/NAME.yaml` for each pipeline; the files written."""
    for image in filter(None, (images.cpu, images.cuda)):
        if not re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image):
            raise UserError(
                f"image {image}: name it by digest, registry/name@sha256:…; "
                "that is all that Kubeflow's cache sees of it"
            )
    written = []
    for name, pipeline in build_pipelines(images).items():
        ir, kubernetes = (out / form / f"{name}.yaml" for form in ("ir", "kubernetes"))
        for file in (ir, kubernetes):
            file.parent.mkdir(parents=True, exist_ok=True)
        Compiler().compile(pipeline, str(ir))
        _write_objects(pipeline, kubernetes, f"{name}-{digest_bytes(ir.read_bytes())[:12]}", namespace)
        written += [ir, kubernetes]
    return written


def _write_objects(pipeline: Pipeline, file: Path, version: str, namespace: str) -> None:
    """A Pipeline and a PipelineVersion. A version never changes, so its name is that of its content."""
    options = KubernetesManifestOptions(
        pipeline_name=pipeline.name,
        pipeline_version_name=version,
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    Compiler().compile(pipeline, str(file), kubernetes_manifest_options=options, kubernetes_manifest_format=True)
