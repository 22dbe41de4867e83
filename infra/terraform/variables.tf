variable "region" {
  description = "AWS region of everything here."
  type        = string
}

variable "name" {
  description = "Name before everything: the buckets are <name>-lake and <name>-artifacts, unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,50}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 52 lower-case letters, digits and hyphens: S3 allows no others in a bucket's name."
  }
}

variable "tags" {
  description = "Tags on everything, besides project and managed-by."
  type        = map(string)
  default     = {}
}

variable "lake_prefix" {
  description = "Folder of the lake in its bucket; empty for the whole bucket."
  type        = string
  default     = ""

  validation {
    condition     = !startswith(var.lake_prefix, "/") && !endswith(var.lake_prefix, "/")
    error_message = "lake_prefix has no slash at either end; write a/b."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts both buckets. Without one, S3's own keys do (AES256)."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be a key's ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), not an alias."
  }
}

variable "events_cold_after_days" {
  description = "Days after which events move to cheaper storage. Collection reads an event once, soon after it landed."
  type        = number
  default     = 90

  validation {
    condition     = var.events_cold_after_days >= 30
    error_message = "events_cold_after_days must be 30 or more: S3 moves nothing younger to STANDARD_IA."
  }
}

variable "undo_days" {
  description = "Days for which what was overwritten or deleted can be brought back."
  type        = number
  default     = 30

  validation {
    condition     = var.undo_days >= 1
    error_message = "undo_days must be 1 or more."
  }
}

variable "images" {
  description = "Images that get a repository."
  type        = set(string)
  default = [
    "ratchet-components",
    "ratchet-components-cuda",
    "ratchet-airflow",
    "ratchet-release-services",
    "ratchet-mlflow",
  ]
}

variable "oidc_provider_arn" {
  description = "IAM OIDC provider of the EKS cluster: it vouches for service accounts."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/", var.oidc_provider_arn))
    error_message = "oidc_provider_arn must be arn:aws:iam::ACCOUNT:oidc-provider/HOST/PATH; `aws iam list-open-id-connect-providers` lists yours."
  }
}

variable "service_accounts" {
  description = "Service accounts that may take each role, as namespace/name, where they are not ratchet/ratchet-<role>. The role `pipelines` exists only if named here: Kubeflow runs every step, releases too, under one account."
  type        = map(set(string))
  default     = {}

  validation {
    condition     = alltrue([for account in flatten([for accounts in values(var.service_accounts) : tolist(accounts)]) : can(regex("^[a-z0-9-]+/[a-z0-9.-]+$", account))])
    error_message = "service_accounts are written namespace/name, like kubeflow/pipeline-runner."
  }
}

variable "gpu_nodes" {
  description = "A node group for training. Without it there is none."
  type = object({
    cluster_name   = string
    node_role_arn  = string
    subnet_ids     = set(string)
    instance_types = optional(list(string), ["g6.xlarge"])
    max_size       = optional(number, 1)
    disk_gib       = optional(number, 100)
  })
  default = null

  validation {
    condition     = var.gpu_nodes == null || try(var.gpu_nodes.max_size >= 1, false)
    error_message = "gpu_nodes.max_size must be 1 or more; leave gpu_nodes out for no GPU."
  }
}

variable "destroy_data" {
  description = "Let `terraform destroy` delete buckets and repositories that hold something."
  type        = bool
  default     = false
}
