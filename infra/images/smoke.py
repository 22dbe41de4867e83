"""Check that this environment can compile what training compiles, before a GPU node is bought to find out.

    python smoke.py [--without-torch]

On a GPU, attention is compiled by Triton, which builds a small C extension against Python.h when it is first used. So a
compiler, Python's headers and two folders for the results must be there. Where a GPU is, a kernel is built and run;
where none is, as in an image's build, the compiler is tried on an extension of the same kind.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

EXTENSION = """
#include <Python.h>

static PyObject *answer(PyObject *self, PyObject *args) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "smoke_extension", NULL, -1, methods};
PyMODINIT_FUNC PyInit_smoke_extension(void) { return PyModule_Create(&module); }
"""
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


class Fault(Exception):
    """What is missing here, and what to do."""


def main() -> int:
    """Run the checks, print a line for each, and return 1 if one fails."""
    checks = [check_caches, check_compiler]
    if "--without-torch" not in sys.argv[1:]:
        checks.append(check_torch)
    for check in checks:
        try:
            print(f"ok      {check()}")
        except Fault as fault:
            print(f"failed  {fault}", file=sys.stderr)
            return 1
    return 0


def check_caches() -> str:
    """The folders for compiled kernels can be written, whoever we are."""
    for name in CACHES:
        folder = os.environ.get(name, "")
        if not folder:
            raise Fault(f"{name} is not set: point it to a folder under /tmp, or a read-only disk stops training")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise Fault(f"{name} is {folder}, which cannot be written: {error}") from None
    return f"caches in {', '.join(os.environ[name] for name in CACHES)}"


def check_compiler() -> str:
    """A C extension is built and imported, as Triton does with its driver."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if not compiler:
        raise Fault("there is no C compiler: install gcc and libc6-dev, or set CC")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise Fault(f"{header} is missing: install python3-dev, or take a base image whose Python has its headers")
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "smoke_extension.c"), Path(folder, "smoke_extension.so")
        source.write_text(EXTENSION)
        command = [compiler, "-shared", "-fPIC", f"-I{header.parent}", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Fault(
                f"{compiler} does not build an extension; are libc6-dev's headers there?\n{done.stderr.strip()}"
            )
        spec = importlib.util.spec_from_file_location("smoke_extension", library)
        assert spec and spec.loader
        extension = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(extension)
        if extension.answer() != 42:
            raise Fault(f"what {compiler} built answers {extension.answer()} instead of 42")
    return f"{compiler} builds extensions for Python {sys.version.split()[0]}"


def check_torch() -> str:
    """Import torch; where it sees a GPU, let Triton build a kernel and compare its result."""
    try:
        import torch
    except ImportError as error:
        raise Fault(f"torch cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        return f"torch {torch.__version__}; it sees no GPU, so no kernel was built"

    def weighted(values: torch.Tensor) -> torch.Tensor:
        return (torch.softmax(values, dim=-1) * values).sum(dim=-1)

    values = torch.randn(64, 128, device="cuda")
    built = torch.compile(weighted)(values)
    if not torch.allclose(built, weighted(values), atol=1e-5):
        raise Fault(f"a kernel built for {torch.cuda.get_device_name()} computes something else than torch does")
    return f"torch {torch.__version__} builds kernels for {torch.cuda.get_device_name()}"


if __name__ == "__main__":
    sys.exit(main())
