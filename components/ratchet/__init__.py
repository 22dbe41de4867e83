"""Ratchet: from users' votes to LoRA adapters that only move forward.

Three rings, imports inward: core (pure functions on values), step (read, call core, write a manifest), adapters
(command line and orchestrators, in `ratchet_pipelines` and `dags`). `pyproject.toml` lists the core modules; a
test holds the rings.
"""

__version__ = "0.1.0"
