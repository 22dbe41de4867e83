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
  description = "Days after which event files of 128 KiB and more move to cheaper storage: imports, and what routers write under load. Smaller ones stay, since cheaper storage bills each as if it had 128 KiB. Collection reads an event once, soon after it landed. null: none moves."
  type        = number
  default     = 90

  validation {
    condition     = var.events_cold_after_days == null || try(var.events_cold_after_days >= 30, false)
    error_message = "events_cold_after_days must be 30 or more, or null: S3 moves nothing younger to STANDARD_IA."
  }
}

variable "work_days" {
  description = "Days after which the checkpoints of a training that never ended are deleted. One that is taken up later starts from the beginning."
  type        = number
  default     = 30

  validation {
    condition     = var.work_days >= 7
    error_message = "work_days must be 7 or more: a training may run for a day, wait for a person, and be started again."
  }
}

variable "undo_days" {
  description = "Days for which what was overwritten or deleted can be brought back. What is deleted for a person who wants to be forgotten is gone after them, too."
  type        = number
  default     = 30

  validation {
    condition     = var.undo_days >= 1
    error_message = "undo_days must be 1 or more."
  }
}

variable "images" {
  description = "Images that get a repository, <name>/<image>."
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
  description = "Node groups with GPUs: names, and for each its sizes. Without this there are none. A node is labelled ratchet.dev/nodes=<group>. The group `training` must hold one training or evaluation, `serving` one pod of the model pool; each keeps the other's pods away."
  type = object({
    cluster_name  = string
    node_role_arn = string
    subnet_ids    = set(string)
    groups = optional(map(object({
      instance_types = list(string)
      disk_gib       = number
      min_size       = optional(number, 0)
      max_size       = optional(number, 1)
      labels         = optional(map(string), {})
      taints         = optional(map(string), {}) # with the effect NoSchedule
      })), {
      # One GPU of 48 GB each: an 8B model in bfloat16, and room for what it does.
      training = { instance_types = ["g6e.4xlarge"], disk_gib = 150, labels = { "ratchet.dev/gpu" = "true" } }
      serving  = { instance_types = ["g6e.2xlarge"], disk_gib = 200, max_size = 2, taints = { "ratchet.dev/nodes" = "serving" } }
    })
  })
  default = null

  validation {
    condition     = var.gpu_nodes == null || alltrue([for group in try(values(var.gpu_nodes.groups), []) : group.max_size >= 1 && group.max_size >= group.min_size])
    error_message = "max_size of each group in gpu_nodes must be 1 or more, and no less than its min_size; leave the group out for no GPU."
  }
}

variable "destroy_data" {
  description = "Let `terraform destroy` delete buckets and repositories that hold something."
  type        = bool
  default     = false
}
