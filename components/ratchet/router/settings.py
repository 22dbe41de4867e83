"""What a router pod's environment says: which adapter, which pool, which lake."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from ratchet.adapter_ref import BASE_DIGEST
from ratchet.errors import UserError
from ratchet.events import Consent
from ratchet.router.tokens import parse_keys

BASE_NAME = "base"  # the adapter name that means: none
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MIN_SECRET_CHARS = 32
NUMBERS: dict[str, type[int] | type[float]] = {
    "port": int, "votes_per_minute": int, "retries": int, "timeout_s": float,
}  # fmt: skip

Fallback = Literal["none", "base"]
CHOICES: dict[str, tuple[str, ...]] = {"fallback": get_args(Fallback), "consent_training": get_args(Consent)}


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """Each field is read from RATCHET_ and its name in capitals."""

    pool_url: str
    lake: str
    adapter_name: str = BASE_NAME
    adapter_version: str = "0"
    adapter_digest: str = BASE_DIGEST
    adapter_uri: str = ""
    public_model: str = "assistant"
    arm: str = "primary"
    consent_training: Consent = "unknown"
    """What the users of this service agreed to; stamped on every interaction. Only granted trains."""
    host: str = "127.0.0.1"
    port: int = 8080
    secret: str = field(repr=False)
    """Signs feedback tokens: the same on every router of a lake. `new,old` while it is being changed."""
    api_keys: str = field(default="", repr=False)
    """`tenant=key,tenant=key`: who may ask. Without any, everybody may, as anybody."""
    votes_per_minute: int = 60
    """By one subject, on one process; and as many at once."""
    timeout_s: float = 300.0  # between two bytes of an answer; a CPU pool may have many before the first
    retries: int = 1
    """How often the pool is asked again that cannot be reached or says that it is busy."""
    fallback: Fallback = "none"
    """`base`: the base model answers where the adapter does not, and headers and records say so."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raises UserError for what is missing or should be a number."""
        given: dict[str, Any] = {
            field.name: env[_variable(field.name)] for field in fields(cls) if env.get(_variable(field.name))
        }
        if missing := [name for name in ("pool_url", "lake", "secret") if name not in given]:
            raise UserError(f"the router needs {' and '.join(map(_variable, missing))} in its environment")
        for name, kind in NUMBERS.items():
            if name in given:
                given[name] = _number(name, kind, given[name])
        for name, known in CHOICES.items():
            if name in given and given[name] not in known:
                raise UserError(f"{_variable(name)} = {given[name]!r}: known are {', '.join(known)}")
        # The variable holds the pod's `app` label, which Flagger ends in "-primary" on the primary.
        given["arm"] = "primary" if given.get("arm", "primary").endswith("primary") else "canary"
        settings = cls(**given)
        settings._check_credentials()
        return settings

    @property
    def pool_model(self) -> str | None:
        """What the pool calls the adapter; None for its base model, whatever that is called."""
        return None if self.adapter_name == BASE_NAME else f"{self.adapter_name}@v{self.adapter_version}"

    def _check_credentials(self) -> None:
        if min(map(len, self.secret.split(","))) < MIN_SECRET_CHARS:
            raise UserError(
                f"{_variable('secret')} must have {MIN_SECRET_CHARS} characters or more, the same on every router: "
                "it signs what lets users vote; `openssl rand -hex 32` makes one"
            )
        try:
            tenants = parse_keys(self.api_keys)
        except ValueError as error:
            raise UserError(f"{_variable('api_keys')} cannot be read: {error}") from None
        if not tenants and self.host not in LOOPBACK:
            raise UserError(
                f"{_variable('api_keys')} is empty, and {self.host} can be reached from elsewhere: anyone could "
                f"ask, and vote, as anyone. Give tenants keys, or serve on {LOOPBACK[0]}"
            )


def _number(name: str, kind: type[int] | type[float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{_variable(name)} = {text!r} is not a number") from None


def _variable(name: str) -> str:
    return f"RATCHET_{name.upper()}"
