# One key for what rests: Kubernetes' Secrets, nodes' disks, databases, and with kms_key_arn the lake.

module "key" {
  source  = "terraform-aws-modules/kms/aws"
  version = "4.2.0"

  description             = "Ratchet: ${var.name}"
  aliases                 = [var.name]
  enable_key_rotation     = true
  deletion_window_in_days = 30
}
