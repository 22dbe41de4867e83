"""Authenticate tenants by key, and votes by a signed ticket that comes with each answer. Pure.

A tenant's key identifies whose users ask. The ticket (x-feedback-token) names the answer, its subject and its adapter;
its holder may vote on that answer as that subject, and nothing else. Routers that share the secret accept each other's
tickets, so a vote may arrive at either arm.
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
    """One served answer, to which a vote on it is attributed."""

    interaction_id: str
    subject_id: str
    tenant: str
    adapter_digest: str
    arm: str


class Signer:
    """Signs tickets with the first secret and accepts those of any, so that secrets can be rotated."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]

    @classmethod
    def of(cls, comma_separated: str) -> Self:
        return cls(part.strip() for part in comma_separated.split(","))

    def sign(self, ticket: Ticket) -> str:
        payload = _encode(json.dumps(list(asdict(ticket).values()), separators=(",", ":")).encode())
        return f"{payload}.{_signature(self._secrets[0], payload)}"

    def read(self, token: str) -> Ticket:
        """Return the token's ticket. Raises ValueError for a token that was not signed with one of the secrets."""
        payload, _, signature = token.partition(".")
        claimed = signature.encode(errors="replace")
        if not any([hmac.compare_digest(_signature(secret, payload).encode(), claimed) for secret in self._secrets]):
            raise ValueError("the feedback token was not issued here")
        names = Ticket.__dataclass_fields__
        return Ticket(
            **dict(zip(names, json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))), strict=True))
        )


def parse_keys(text: str) -> dict[str, str]:
    """Parse `tenant=key,tenant=key` into tenants by the digest of their key. Raises ValueError for anything else."""
    tenants = {}
    for part in filter(None, text.split(",")):
        tenant, equals, key = part.strip().partition("=")
        if not (tenant and equals and key):
            raise ValueError("write tenant=key, with commas between")
        tenants[_digest(key)] = tenant
    return tenants


def tenant_of(key: str, tenants: Mapping[str, str]) -> str | None:
    """Return the key's tenant. Looked up by digest, so that the timing reveals nothing about keys."""
    return tenants.get(_digest(key))


def _signature(secret: bytes, payload: str) -> str:
    return _encode(hmac.digest(secret, payload.encode(errors="replace"), "sha256"))


def _digest(key: str) -> str:
    return sha256(key.encode(errors="replace")).hexdigest()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
