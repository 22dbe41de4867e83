"""The loop on Argo Workflows: WorkflowTemplates and a CronWorkflow around the `ratchet` command.

`ratchet compile argo --image IMAGE --out DIR` writes them; Argo CD applies them (docs/argo.md).
"""
