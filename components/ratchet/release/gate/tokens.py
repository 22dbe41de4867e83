"""Who may ask the gate: people and services hold RATCHET_GATE_TOKEN, Flagger a token derived from it.

Flagger can send neither header nor signature, only a webhook's `metadata`, which anyone sees who may read the Canary
or the values in Git. So its token opens the hooks and nothing else, and does not tell the one that it comes from.
"""

import hashlib
import hmac
from collections.abc import Mapping

from ratchet.errors import UserError

VARIABLE = "RATCHET_GATE_TOKEN"
MIN_CHARS = 16
METADATA_KEY = "token"


def gate_token(environment: Mapping[str, str]) -> str:
    """The token of the environment. Raises UserError where it is missing or too short to be a secret."""
    token = environment.get(VARIABLE, "")
    if len(token) < MIN_CHARS:
        raise UserError(
            f"{VARIABLE} has {len(token)} characters and needs {MIN_CHARS}; the gate answers nobody without it: "
            f"export {VARIABLE}=$(openssl rand -hex 24)"
        )
    return token


def hook_token(token: str) -> str:
    """What Flagger's webhooks carry: adapter-router's `gate.token`."""
    return hmac.new(token.encode(), b"flagger webhooks", hashlib.sha256).hexdigest()[:32]


def is_token(given: str, wanted: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def bearer(token: str) -> dict[str, str]:
    """The header that carries `token`."""
    return {"Authorization": f"Bearer {token}"}
