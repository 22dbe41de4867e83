output "oidc_provider_arn" {
  description = "For infra/terraform: it vouches for service accounts."
  value       = module.cluster.oidc_provider_arn
}

output "kms_key_arn" {
  description = "For infra/terraform: it encrypts the lake, too."
  value       = module.key.key_arn
}

output "gpu_nodes" {
  description = "For infra/terraform: what its node groups with GPUs need to know."
  value = {
    cluster_name  = module.cluster.cluster_name
    node_role_arn = module.cluster.eks_managed_node_groups["general"].iam_role_arn
    subnet_ids    = var.subnet_ids
  }
}

output "databases" {
  description = "Address of each database, and the secret that holds its user and password."
  value = {
    for name, database in module.database : name => {
      address    = database.db_instance_address
      port       = database.db_instance_port
      secret_arn = database.db_instance_master_user_secret_arn
    }
  }
}
