"""The record of adapters in MLflow: runs, one version per adapter digest, and the aliases that say which one serves."""
