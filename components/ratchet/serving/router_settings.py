"""What a router pod's environment says: which adapter, which pool, which lake."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_args

from ratchet.errors import UserError
from ratchet.events import Consent

BASE_NAME = "base"  # the adapter name that means: none


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """Each field is read from RATCHET_ and its name in capitals."""

    pool_url: str
    lake: str
    adapter_name: str = BASE_NAME
    adapter_version: str = "0"
    adapter_digest: str = BASE_NAME
    adapter_uri: str = ""
    public_model: str = "assistant"
    arm: str = "primary"
    consent_training: Consent = "unknown"
    """What the users of this service agreed to; stamped on every interaction. Only granted trains."""
    host: str = "127.0.0.1"
    port: int = 8080
    timeout_s: float = 300.0  # for one answer; a CPU pool may have many before it

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises UserError for what is missing or should be a number."""
        given: dict[str, Any] = {
            field.name: env[_variable(field.name)] for field in fields(cls) if env.get(_variable(field.name))
        }
        if missing := [name for name in ("pool_url", "lake") if name not in given]:
            raise UserError(f"the router needs {' and '.join(map(_variable, missing))} in its environment")
        for name, number in (("port", int), ("timeout_s", float)):
            if name in given:
                try:
                    given[name] = number(given[name])
                except ValueError:
                    raise UserError(f"{_variable(name)} = {given[name]!r} is not a number") from None
        if (consent := given.get("consent_training", "unknown")) not in get_args(Consent):
            known = ", ".join(get_args(Consent))
            raise UserError(f"{_variable('consent_training')} = {consent!r}: known are {known}")
        # The variable holds the pod's `app` label, which Flagger ends in "-primary" on the primary.
        given["arm"] = "primary" if given.get("arm", "primary").endswith("primary") else "canary"
        return cls(**given)

    @property
    def pool_model(self) -> str | None:
        """What the pool calls the adapter; None for its base model, whatever that is called."""
        return None if self.adapter_name == BASE_NAME else f"{self.adapter_name}@v{self.adapter_version}"


def _variable(name: str) -> str:
    return f"RATCHET_{name.upper()}"
