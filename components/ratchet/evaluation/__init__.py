"""The offline gate: is the candidate adapter no worse than what serves now? Pass, fail, or not enough evidence."""
