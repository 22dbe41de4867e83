"""Profiles: whole ratchet.yaml files to start from."""

from pathlib import Path

from ratchet.errors import UserError


def profile_path(name: str) -> Path:
    folder = Path(__file__).parent
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise UserError(f"profile {name!r}: no such profile; known are {known}")
    return folder / f"{name}.yaml"
