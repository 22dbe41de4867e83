"""Training: weighted SFT, then weighted DPO, of one LoRA adapter that any vLLM server can load."""
