"""The loop as Kubeflow Pipelines. Nothing here is imported by `ratchet` itself: kfp is slow to import."""
