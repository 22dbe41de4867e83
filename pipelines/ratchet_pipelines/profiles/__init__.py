"""Profiles: ratchet.yaml files to start from."""

from pathlib import Path

from ratchet.errors import UserError

FOLDER = Path(__file__).parent


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def profile_path(name: str) -> Path:
    """Return the profile's file. Raises UserError for an unknown name."""
    if name not in profile_names():
        raise UserError(f"profile {name!r}: no such profile; known are {', '.join(profile_names())}")
    return FOLDER / f"{name}.yaml"
