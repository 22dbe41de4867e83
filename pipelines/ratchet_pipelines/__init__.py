"""The steps put together: the local run, the demo, Kubeflow, Argo, and the command line."""
