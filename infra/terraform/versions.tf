# What Ratchet needs from AWS: a lake, a registry for its images, a role for each service account, GPU nodes if wanted.
# The EKS cluster is there already; platform/ makes one, for those who have none. Commands and what was verified: docs/infrastructure.md.

terraform {
  required_version = "~> 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # Bucket, key and region come from -backend-config; the lock is a conditional write in that bucket.
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
