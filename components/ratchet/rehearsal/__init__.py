"""The rehearsal: one process in place of the cluster, so that a release runs on a laptop before it runs there.

It renders the same chart with the same Helm, follows the same Git repository, and calls the same gate. It is test
equipment and the laptop default, never a second rollout engine: on a cluster Argo CD, Flagger, a Gateway and the
kubelet do this work, and nothing here runs.
"""
