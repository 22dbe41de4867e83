# The cluster and its nodes without GPUs. Those with are in infra/terraform (gpu_nodes), by this one's outputs.

module "cluster" {
  source  = "terraform-aws-modules/eks/aws"
  version = "21.19.0"

  name               = var.name
  kubernetes_version = var.kubernetes_version
  vpc_id             = var.vpc_id
  subnet_ids         = var.subnet_ids

  endpoint_private_access      = true
  endpoint_public_access       = length(var.api_open_to) > 0
  endpoint_public_access_cidrs = var.api_open_to
  enabled_log_types            = ["api", "audit", "authenticator"]

  create_kms_key    = false
  encryption_config = { provider_key_arn = module.key.key_arn, resources = ["secrets"] }

  enable_cluster_creator_admin_permissions = true
  access_entries = {
    for role in var.administrators : role => {
      principal_arn = role
      policy_associations = {
        administrator = {
          policy_arn   = "arn:${data.aws_partition.current.partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
          access_scope = { type = "cluster" }
        }
      }
    }
  }

  # Every node is in the cluster's own security group: those of infra/terraform's groups know no other, and must reach
  # CoreDNS and the routers on these.
  create_node_security_group = false

  addons = {
    coredns                = {}
    eks-pod-identity-agent = { before_compute = true }
    kube-proxy             = {}
    vpc-cni = {
      before_compute       = true
      configuration_values = jsonencode({ enableNetworkPolicy = "true" }) # without it NetworkPolicies are only words
    }
    aws-ebs-csi-driver = { pod_identity_association = [{ role_arn = aws_iam_role.ebs.arn, service_account = "ebs-csi-controller-sa" }] }
  }

  eks_managed_node_groups = {
    general = {
      instance_types                        = var.nodes.instance_types
      min_size                              = var.nodes.min_size
      desired_size                          = var.nodes.min_size
      max_size                              = var.nodes.max_size
      labels                                = { "ratchet.dev/nodes" = "general" }
      attach_cluster_primary_security_group = true

      # Pods have roles of their own; a node's is none of their business.
      metadata_options = { http_tokens = "required", http_put_response_hop_limit = 1 }
      block_device_mappings = {
        root = {
          device_name = "/dev/xvda"
          ebs         = { volume_size = var.nodes.disk_gib, volume_type = "gp3", encrypted = true, delete_on_termination = true }
        }
      }
    }
  }
}

data "aws_partition" "current" {}

# Volumes of Kubernetes, as the weights' cache or Airflow's logs, are made by a driver that needs a role.
data "aws_iam_policy_document" "ebs_trust" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "ebs" {
  name               = "${var.name}-ebs"
  assume_role_policy = data.aws_iam_policy_document.ebs_trust.json
}

resource "aws_iam_role_policy_attachment" "ebs" {
  role       = aws_iam_role.ebs.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}
