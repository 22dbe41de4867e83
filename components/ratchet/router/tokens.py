"""Who may ask, and who may vote: keys for tenants, and a signed ticket with each answer for the one who asked. Pure.

A tenant's key says whose users ask. The ticket (x-feedback-token) says which answer was served to whom, and by which
adapter; whoever holds it may judge that answer as that person, and nothing else. Routers that share the secret take
each other's tickets, so a vote may arrive at either arm.
"""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One answer, as served: what a vote on it is attributed to."""

    interaction_id: str
    subject_id: str
    tenant: str
    adapter_digest: str
    arm: str


class Signer:
    """Signs tickets with the first secret and takes those of any: so that secrets can be changed without refusals."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]

    @classmethod
    def of(cls, comma_separated: str) -> Self:
        return cls(part.strip() for part in comma_separated.split(","))

    def sign(self, ticket: Ticket) -> str:
        said = _encode(json.dumps(list(asdict(ticket).values()), separators=(",", ":")).encode())
        return f"{said}.{_signature(self._secrets[0], said)}"

    def read(self, token: str) -> Ticket:
        """Raises ValueError for a token that was not signed with one of the secrets."""
        said, _, signature = token.partition(".")
        claimed = signature.encode(errors="replace")
        if not any([hmac.compare_digest(_signature(secret, said).encode(), claimed) for secret in self._secrets]):
            raise ValueError("the feedback token was not issued here")
        names = Ticket.__dataclass_fields__
        return Ticket(**dict(zip(names, json.loads(urlsafe_b64decode(said + "=" * (-len(said) % 4))), strict=True)))


def parse_keys(text: str) -> dict[str, str]:
    """Tenants by the digest of their key, from `tenant=key,tenant=key`. Raises ValueError for anything else."""
    tenants = {}
    for part in filter(None, text.split(",")):
        tenant, found, key = part.strip().partition("=")
        if not (tenant and found and key):
            raise ValueError("write tenant=key, with commas between")
        tenants[_digest(key)] = tenant
    return tenants


def tenant_of(key: str, tenants: Mapping[str, str]) -> str | None:
    """Whose key this is. Looked up by digest, so that the time it takes tells nothing about keys."""
    return tenants.get(_digest(key))


def _signature(secret: bytes, said: str) -> str:
    return _encode(hmac.digest(secret, said.encode(errors="replace"), "sha256"))


def _digest(key: str) -> str:
    return sha256(key.encode(errors="replace")).hexdigest()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
