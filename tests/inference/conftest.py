"""Fixtures of served models, shared with tests/router."""

from support.served_models import adapters, base, config, pool, serve, start

__all__ = ["adapters", "base", "config", "pool", "serve", "start"]
