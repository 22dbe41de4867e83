"""The reconciler: makes traffic, MLflow alias, Git and ledger agree after a release."""
