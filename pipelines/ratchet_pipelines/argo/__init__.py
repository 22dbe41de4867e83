"""The loop on Argo Workflows: WorkflowTemplates and a CronWorkflow around the `ratchet` command.

`python -m ratchet_pipelines.argo --image IMAGE --out DIR` writes them; Argo CD applies them (docs/argo.md).
"""
