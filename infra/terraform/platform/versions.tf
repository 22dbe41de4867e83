# What infra/terraform takes as given, for those who have none of it: an EKS cluster in a VPC that is there, a key, and a
# Postgres each for MLflow and Airflow. Optional, and a state of its own: a cluster outlives the lakes beside it.
# The modules are the community's, at versions whose inputs and outputs tests/infra/terraform_modules.json records.

terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.28, < 7.0"
    }
  }

  # Bucket, key and region come from -backend-config, as beside; the key must be another.
  backend "s3" {
    use_lockfile = true
    encrypt      = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge({ project = "ratchet", managed-by = "terraform" }, var.tags)
  }
}
