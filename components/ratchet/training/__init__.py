"""Train one LoRA adapter that any vLLM server can load: weighted SFT, then weighted DPO."""
