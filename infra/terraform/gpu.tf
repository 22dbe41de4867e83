# Nodes for training: none run while no pod asks for one. Scaling from zero is the cluster autoscaler's work.

resource "aws_eks_node_group" "gpu" {
  count           = var.gpu_nodes == null ? 0 : 1
  cluster_name    = var.gpu_nodes.cluster_name
  node_group_name = "${var.name}-gpu"
  node_role_arn   = var.gpu_nodes.node_role_arn
  subnet_ids      = var.gpu_nodes.subnet_ids
  instance_types  = var.gpu_nodes.instance_types
  ami_type        = "AL2023_x86_64_NVIDIA"
  disk_size       = var.gpu_nodes.disk_gib
  labels          = { "ratchet.dev/gpu" = "true" }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.gpu_nodes.max_size
  }

  # Steps that train tolerate it; nothing else may settle on an expensive node.
  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }
}
