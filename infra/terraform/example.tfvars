region            = "eu-central-1"
name              = "example-ratchet"
oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"

# The router's chart names its own service account, and the gate runs beside the reconciler's.
# service_accounts = { router = ["adapter-router"] }

# gpu_nodes = {
#   cluster_name  = "main"
#   node_role_arn = "arn:aws:iam::123456789012:role/main-nodes"
#   subnet_ids    = ["subnet-0123456789abcdef0"]
# }
