"""The offline gate: test the candidate adapter for non-inferiority to the incumbent: pass, fail or insufficient."""
