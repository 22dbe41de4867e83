"""Read a router's settings from its environment: adapter, pool, lake, credentials."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from ratchet.adapter_ref import BASE_DIGEST
from ratchet.errors import UserError
from ratchet.events import Consent
from ratchet.router.tokens import parse_keys, split_secrets

BASE_NAME = "base"  # as the adapter's name: no adapter, the base model
LOOPBACK = ("127.0.0.1", "::1", "localhost")
DIGEST = re.compile(r"[0-9a-f]{64}")
MIN_SECRET_CHARS = 32
MIN_KEY_CHARS = 16  # of keys and tokens that can be tried from elsewhere
NUMBERS: dict[str, type[int] | type[float]] = {
    "port": int, "votes_per_minute": int, "retries": int, "timeout_s": float,
}  # fmt: skip

Fallback = Literal["none", "base"]
CHOICES: dict[str, tuple[str, ...]] = {"fallback": get_args(Fallback), "consent_training": get_args(Consent)}


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """The settings; each field is read from the variable RATCHET_<NAME>."""

    pool_url: str
    lake: str
    adapter_name: str = BASE_NAME
    adapter_version: str = "0"
    adapter_digest: str = BASE_DIGEST
    adapter_uri: str = ""
    public_model: str = "assistant"
    user_jwt_secret: str = field(default="", repr=False)
    """Verifies the JSON web token (HS256) in which a front end signs who asks; its `sub` goes before other names."""
    user_jwt_header: str = "x-openwebui-user-jwt"
    user_headers: str = "x-openwebui-user-id"
    """Headers, with commas between, in which front ends that are trusted name who asks; read after the body's names."""
    chat_headers: str = "x-openwebui-chat-id"
    """Headers in which they name the chat."""
    arm: str = "primary"
    consent_training: Consent = "unknown"
    """The consent that this service's users gave, recorded with every interaction. Only `granted` is trained on."""
    host: str = "127.0.0.1"
    port: int = 8080
    secret: str = field(repr=False)
    """Encrypts feedback tokens; the same on every router of a lake. `new,old` during a rotation."""
    api_keys: str = field(default="", repr=False)
    """`tenant=key,tenant=key`; without keys, requests are not authenticated."""
    allowed_origins: str = ""
    """`https://one,https://other`: whose pages may read answers and vote; `*` for any. Empty: any if tenants have keys,
    which no page has by itself, and none without keys."""
    operator_token: str = field(default="", repr=False)
    """Opens /metrics and /poolz, and shows the arm of an answer. Without one they are open, on loopback only."""
    votes_per_minute: int = 60
    """Votes of one subject in one process; also the burst."""
    timeout_s: float = 300.0  # between two bytes of an answer; on a CPU the first may take long
    retries: int = 1
    """Retries of a pool that cannot be reached or is busy."""
    fallback: Fallback = "none"
    """`base`: the base model answers if the adapter does not; headers and records show it."""

    peer_url: str = ""
    """Where the other arm's routers answer, with `{arm}` for its name: conversations then stay on their arm."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings. Raises UserError for a missing or invalid variable."""
        given: dict[str, Any] = {
            field.name: env[_variable(field.name)] for field in fields(cls) if env.get(_variable(field.name))
        }
        if missing := [name for name in ("pool_url", "lake", "secret") if name not in given]:
            raise UserError(f"the router needs {' and '.join(map(_variable, missing))} in its environment")
        for name, kind in NUMBERS.items():
            if name in given:
                try:
                    given[name] = kind(given[name])
                except ValueError:
                    raise UserError(f"{_variable(name)} = {given[name]!r} is not a number") from None
        for name, known in CHOICES.items():
            if name in given and given[name] not in known:
                raise UserError(f"{_variable(name)} = {given[name]!r}: known are {', '.join(known)}")
        if given.get("peer_url", "{arm}").count("{arm}") != 1:
            raise UserError(f"{_variable('peer_url')} = {given['peer_url']!r} needs {{arm}} in it, once")
        # The variable holds the pod's `app` label, which Flagger ends in "-primary" on the primary.
        given["arm"] = "primary" if given.get("arm", "primary").endswith("primary") else "canary"
        settings = cls(**given)
        settings._check_digest()
        settings._check_credentials()
        return settings

    @property
    def pool_model(self) -> str | None:
        """The pool's name of the adapter; None for the base model."""
        return None if self.adapter_name == BASE_NAME else f"{self.adapter_name}@v{self.adapter_version}"

    @property
    def origins(self) -> list[str]:
        """The origins that browsers are told of; none turns CORS off."""
        given = self.allowed_origins or ("*" if self.api_keys else "")
        return [origin for origin in split_secrets(given) if origin]

    @property
    def names_in(self) -> tuple[list[str], list[str]]:
        """The headers that name people, and those that name chats, in lower case."""
        users, chats = (split_secrets(names.lower()) for names in (self.user_headers, self.chat_headers))
        return list(filter(None, users)), list(filter(None, chats))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the router."""
        return self.host in LOOPBACK

    def _check_digest(self) -> None:
        if self.adapter_digest != BASE_DIGEST and not DIGEST.fullmatch(self.adapter_digest):
            raise UserError(
                f"{_variable('adapter_digest')} = {self.adapter_digest!r:.100} is no SHA-256 of 64 hexadecimal digits; "
                "the adapter's manifest has it"
            )

    def _check_credentials(self) -> None:
        if min(map(len, split_secrets(self.secret))) < MIN_SECRET_CHARS:
            raise UserError(
                f"{_variable('secret')} must have {MIN_SECRET_CHARS} characters or more, the same on every router: "
                "it encrypts what lets users vote; `openssl rand -hex 32` makes one"
            )
        try:
            tenants = parse_keys(self.api_keys)
        except ValueError as error:
            raise UserError(f"{_variable('api_keys')} cannot be read: {error}") from None
        if self.is_local:
            return
        if not tenants:
            raise UserError(
                f"{_variable('api_keys')} is empty, and {self.host} can be reached from elsewhere: anyone could "
                f"ask, and vote, as anyone. Give tenants keys, or serve on {LOOPBACK[0]}"
            )
        guessable = [tenant for key, tenant in tenants.items() if len(key) < MIN_KEY_CHARS]
        if self.operator_token and len(self.operator_token) < MIN_KEY_CHARS:
            guessable.append(_variable("operator_token"))
        if guessable:
            raise UserError(
                f"the key of {' and '.join(guessable)} has fewer than {MIN_KEY_CHARS} characters, and {self.host} can "
                "be reached from elsewhere: it could be guessed; `openssl rand -hex 32` makes one"
            )


def _variable(name: str) -> str:
    return f"RATCHET_{name.upper()}"
