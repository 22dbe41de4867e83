"""Authenticate callers of the gate: people and services hold RATCHET_GATE_TOKEN, Flagger a token derived from it.

Flagger can send neither header nor signature, only a webhook's `metadata`, which is visible to everyone who may read
the Canary or the values in Git. So its token opens the hooks alone, and RATCHET_GATE_TOKEN cannot be derived from it.
"""

import hashlib
import hmac
from collections.abc import Mapping

from ratchet.errors import UserError

VARIABLE = "RATCHET_GATE_TOKEN"
MIN_CHARS = 16
METADATA_KEY = "token"


def gate_token(environment: Mapping[str, str]) -> str:
    """Return the token of the environment. Raises UserError if it is missing or too short to be a secret."""
    token = environment.get(VARIABLE, "")
    if len(token) < MIN_CHARS:
        raise UserError(
            f"{VARIABLE} has {len(token)} characters and needs {MIN_CHARS}; the gate does not start without it: "
            f"export {VARIABLE}=$(openssl rand -hex 24)"
        )
    return token


def hook_token(token: str) -> str:
    """Return the token that Flagger's webhooks carry: adapter-router's `gate.token`."""
    return hmac.new(token.encode(), b"flagger webhooks", hashlib.sha256).hexdigest()[:32]


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries `token`."""
    return {"Authorization": f"Bearer {token}"}
