"""An LLM judge: compares two answers in both orders, and counts only if it agrees with people."""
