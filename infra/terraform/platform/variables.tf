variable "region" {
  description = "AWS region of everything here."
  type        = string
}

variable "name" {
  description = "Name of the cluster, and before everything else."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,36}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 38 lower-case letters, digits and hyphens, and begin with a letter: a database's name has it too."
  }
}

variable "tags" {
  description = "Tags on everything, besides project and managed-by."
  type        = map(string)
  default     = {}
}

variable "vpc_id" {
  description = "VPC for the cluster and the databases."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id must be vpc-…; `aws ec2 describe-vpcs` lists yours."
  }
}

variable "subnet_ids" {
  description = "Private subnets with a way out, in two zones or more: nodes and databases are there."
  type        = set(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must be two or more, in different zones: EKS and RDS accept no fewer."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes of the cluster, as 1.34. Node groups follow it."
  type        = string

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be like 1.34: EKS chooses the patch."
  }
}

variable "api_open_to" {
  description = "Networks that reach the cluster's API from outside of the VPC. None: it is reached from inside alone."
  type        = set(string)
  default     = []

  validation {
    condition     = !contains(var.api_open_to, "0.0.0.0/0")
    error_message = "api_open_to must name your networks, not the whole internet."
  }
}

variable "administrators" {
  description = "ARNs of the roles that may do anything in the cluster, besides who runs Terraform."
  type        = set(string)
  default     = []
}

variable "nodes" {
  description = "Nodes without a GPU: routers, gate, orchestrators, and the steps that need none. The largest step must fit on one."
  type = object({
    instance_types = optional(list(string), ["m7i.2xlarge"])
    min_size       = optional(number, 2)
    max_size       = optional(number, 6)
    disk_gib       = optional(number, 120)
  })
  default = {}

  validation {
    condition     = var.nodes.min_size >= 2 && var.nodes.max_size >= var.nodes.min_size
    error_message = "nodes.min_size must be 2 or more, or one node's end takes every router along; nodes.max_size no less."
  }
}

variable "databases" {
  description = "Postgres for MLflow and Airflow: sizes of each, and whether it has a second machine in another zone."
  type = map(object({
    instance_class = optional(string, "db.t4g.medium")
    storage_gib    = optional(number, 20)
    most_gib       = optional(number, 200)
    multi_zone     = optional(bool, true)
  }))
  default = { mlflow = {}, airflow = {} }

  validation {
    condition     = length(setsubtract(keys(var.databases), ["mlflow", "airflow"])) == 0
    error_message = "databases are mlflow and airflow; leave out one that you have elsewhere."
  }
}

variable "postgres_version" {
  description = "Major version of Postgres; RDS chooses the minor one."
  type        = string
  default     = "17"
}

variable "destroy_data" {
  description = "Let `terraform destroy` delete the databases, without a last snapshot."
  type        = bool
  default     = false
}
