"""Serving: a model pool on CPU with vLLM's surface, and the thin routers that record what users saw and thought."""
