"""Authenticate tenants by key, and votes by an encrypted ticket that comes with each answer. Pure.

A tenant's key identifies whose users ask. The ticket (x-feedback-token) names the answer, its subject and its adapter;
its holder may vote on that answer as that subject, and nothing else. It is encrypted, because whoever knows which arm
answered can vote against an arm. Routers that share the secret accept each other's tickets, so a vote may arrive at
either arm.
"""

import json
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ratchet.turns import ANONYMOUS

PURPOSE = b"ratchet feedback token\0"
ID_PURPOSE = b"ratchet completion id\0"
COMPLETION = "chatcmpl-"  # begins the id of a completion, as OpenAI's do
ID_BYTES = 16  # of an interaction id, which is also the nonce of the completion id
FIXED = struct.Struct("!d32sBH")  # assigned_at, adapter digest, flags, length of the tenant
CANARY, HEX_DIGEST, OF_TENANT = 1, 2, 4  # flags; the last: the subject begins with the tenant, which is left out
ROUTER, PROOF_S = b"a router's own request", 60
WIDTHS = {"adapter_digest": 64, "arm": 7}  # padded to these, so that a token's length tells nothing of its arm


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """One served answer, to which a vote on it is attributed."""

    interaction_id: str
    subject_id: str
    tenant: str
    adapter_digest: str
    arm: str
    assigned_at: float = 0.0
    """Unix seconds at which the route chose the arm: of the first turn, for a conversation that is kept on its arm."""


class Signer:
    """Encrypts and authenticates tickets with the first secret; accepts those of any, so that it can be rotated."""

    def __init__(self, secrets: Iterable[str]) -> None:
        secrets = list(secrets)
        self._ids = [AESGCM(sha256(ID_PURPOSE + secret.encode()).digest()) for secret in secrets]
        keys = [urlsafe_b64encode(sha256(PURPOSE + secret.encode()).digest()) for secret in secrets]
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def of(cls, comma_separated: str) -> Self:
        return cls(split_secrets(comma_separated))

    def sign(self, ticket: Ticket) -> str:
        values = [value.ljust(WIDTHS[name]) if name in WIDTHS else value for name, value in asdict(ticket).items()]
        return self._fernet.encrypt(json.dumps(values, separators=(",", ":")).encode()).decode()

    def read(self, token: str) -> Ticket:
        """Return the token's ticket. Raises ValueError for a token that was not made with one of the secrets."""
        try:
            values = json.loads(self._fernet.decrypt(token.encode(errors="replace")))
        except InvalidToken:
            raise ValueError("the feedback token was not issued here") from None
        named = zip(Ticket.__dataclass_fields__, values, strict=True)
        return Ticket(**{name: value.rstrip() if name in WIDTHS else value for name, value in named})

    def seal(self, ticket: Ticket) -> str:
        """Return the completion's id: the ticket again, shorter, as every client shows it and logs hold it.

        So it lets nobody vote by itself: it takes the tenant's key as well. The nonce is the interaction's id, so two
        different tickets of one interaction must never be sealed.
        """
        nonce = bytes.fromhex(ticket.interaction_id)
        tenant, subject = ticket.tenant.encode("utf-8", "replace"), ticket.subject_id.encode("utf-8", "replace")
        is_hex, is_within = len(ticket.adapter_digest) == 64, subject.startswith(tenant + b"/")
        digest = bytes.fromhex(ticket.adapter_digest) if is_hex else ticket.adapter_digest.encode()
        flags = CANARY * (ticket.arm == "canary") | HEX_DIGEST * is_hex | OF_TENANT * is_within
        fixed = FIXED.pack(ticket.assigned_at, digest, flags, len(tenant))
        rest = subject[len(tenant) + 1 :] if is_within else subject
        sealed = self._ids[0].encrypt(nonce, fixed + tenant + rest, None)
        return COMPLETION + urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def unseal(self, completion_id: str) -> Ticket:
        """Return the ticket in a completion's id. Raises ValueError for an id that was not made with a secret."""
        text = completion_id.removeprefix(COMPLETION)
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            data = b""
        nonce, sealed = data[:ID_BYTES], data[ID_BYTES:]
        for key in self._ids:
            try:
                return _unpacked(nonce, key.decrypt(nonce, sealed, None))
            except (InvalidTag, ValueError):
                continue
        raise ValueError("no answer from here has this id")

    def prove(self) -> str:
        """Return a proof, good for a minute, that its sender has the secret: for other routers, and never for users."""
        return self._fernet.encrypt(ROUTER).decode()

    def is_proof(self, given: str) -> bool:
        """Return whether another router made this."""
        try:
            return self._fernet.decrypt(given.encode(errors="replace"), ttl=PROOF_S) == ROUTER
        except InvalidToken:
            return False


def _unpacked(nonce: bytes, content: bytes) -> Ticket:
    assigned_at, digest, flags, length = FIXED.unpack_from(content)
    names = content[FIXED.size :]
    tenant, subject = names[:length].decode(), names[length:].decode()
    return Ticket(
        interaction_id=nonce.hex(),
        subject_id=f"{tenant}/{subject}" if flags & OF_TENANT else subject,
        tenant=tenant,
        adapter_digest=digest.hex() if flags & HEX_DIGEST else digest.rstrip(b"\0").decode(),
        arm="canary" if flags & CANARY else "primary",
        assigned_at=assigned_at,
    )


def split_secrets(comma_separated: str) -> list[str]:
    """Return the secrets of `new,old`, without the spaces around them."""
    return [part.strip() for part in comma_separated.split(",")]


def parse_keys(text: str) -> dict[str, str]:
    """Parse `tenant=key,tenant=key` into tenants by key. Raises ValueError for anything else and for shared keys."""
    tenants: dict[str, str] = {}
    for part in filter(None, split_secrets(text)):
        tenant, equals, key = (piece.strip() for piece in part.partition("="))
        if not (tenant and equals and key):
            raise ValueError("write tenant=key, with commas between")
        if tenant == ANONYMOUS.rstrip("/"):
            raise ValueError(f"no tenant can be called {tenant}: that is how people without a name are recorded")
        if tenants.setdefault(key, tenant) != tenant:
            raise ValueError(f"{tenants[key]} and {tenant} have the same key: nobody could tell whose users ask")
    return tenants


def by_digest(tenants: Mapping[str, str]) -> dict[str, str]:
    """Return tenants by the digest of their key, for `tenant_of`."""
    return {_digest(key): tenant for key, tenant in tenants.items()}


def tenant_of(key: str, tenants: Mapping[str, str]) -> str | None:
    """Return the key's tenant. Looked up by digest, so that the timing reveals nothing about keys."""
    return tenants.get(_digest(key))


def _digest(key: str) -> str:
    return sha256(key.encode(errors="replace")).hexdigest()
