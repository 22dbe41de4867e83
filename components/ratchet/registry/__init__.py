"""The adapters in MLflow: runs, one version per adapter digest, and aliases that name the serving version."""
