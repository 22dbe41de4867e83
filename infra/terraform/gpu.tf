# Nodes with GPUs, a group for each kind of work. What must fit on one: tests/infra/test_terraform_nodes.py does the sums.
# None run while no pod asks for one. Scaling from zero is the cluster autoscaler's work.

locals {
  gpu_groups = var.gpu_nodes == null ? {} : var.gpu_nodes.groups
}

resource "aws_eks_node_group" "gpu" {
  for_each        = local.gpu_groups
  cluster_name    = var.gpu_nodes.cluster_name
  node_group_name = "${var.name}-${each.key}"
  node_role_arn   = var.gpu_nodes.node_role_arn
  subnet_ids      = var.gpu_nodes.subnet_ids
  instance_types  = each.value.instance_types
  ami_type        = "AL2023_x86_64_NVIDIA"
  disk_size       = each.value.disk_gib
  labels          = merge({ "ratchet.dev/nodes" = each.key }, each.value.labels)

  scaling_config {
    min_size     = each.value.min_size
    desired_size = each.value.min_size
    max_size     = each.value.max_size
  }

  # Pods that want a GPU tolerate it; nothing else may settle on an expensive node.
  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  dynamic "taint" {
    for_each = each.value.taints

    content {
      key    = taint.key
      value  = taint.value
      effect = "NO_SCHEDULE"
    }
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }
}
