region            = "eu-central-1"
name              = "staging-ratchet" # infra/argocd has names that begin with it
oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"

# service_accounts = { pipelines = ["kubeflow/pipeline-runner"] }

# gpu_nodes = {
#   cluster_name  = "main"
#   node_role_arn = "arn:aws:iam::123456789012:role/main-nodes"
#   subnet_ids    = ["subnet-0123456789abcdef0"]
#   # groups: one for training, one of two nodes for serving, unless you say otherwise
# }
