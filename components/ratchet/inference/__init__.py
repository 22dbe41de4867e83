"""The CPU model server with vLLM's surface, and the syncer that loads adapters into a pool."""
