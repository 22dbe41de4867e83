# Two buckets. The lake holds what Ratchet knows and is never expired; artifacts holds what tools keep for themselves
# (Argo's and Kubeflow's files, MLflow's).

locals {
  buckets = toset(["lake", "artifacts"])
  lake    = var.lake_prefix == "" ? "" : "${var.lake_prefix}/"

  # Written with If-None-Match and never again: an overwrite here is a bug or worse.
  create_only = ["canaries", "collections", "eval_answers", "events", "judgements", "ledger", "manifests", "registry", "releases", "splits", "verdicts"]
  # Who was live when, and what was made from what. Nobody deletes these, not even an administrator in a hurry.
  permanent = ["ledger", "manifests"]
  # Overwritten or deleted in the course of things; their old versions are the undo.
  mutable = ["leases", "queue", "tables", "work"]
}

resource "aws_s3_bucket" "this" {
  for_each      = local.buckets
  bucket        = "${var.name}-${each.key}"
  force_destroy = var.destroy_data
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.buckets
  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  bucket     = aws_s3_bucket.this["lake"].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "events-to-cheaper-storage"
    status = "Enabled"

    filter {
      prefix = "${local.lake}events/"
    }

    transition {
      days          = var.events_cold_after_days
      storage_class = "STANDARD_IA"
    }

    # Not GLACIER: a lake that is read again must not wait hours for each file.
    transition {
      days          = var.events_cold_after_days + 180
      storage_class = "GLACIER_IR"
    }
  }

  dynamic "rule" {
    for_each = local.mutable

    content {
      id     = "forget-old-versions-of-${rule.value}"
      status = "Enabled"

      filter {
        prefix = "${local.lake}${rule.value}/"
      }

      noncurrent_version_expiration {
        noncurrent_days = var.undo_days
      }
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "artifacts" {
  bucket     = aws_s3_bucket.this["artifacts"].id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = var.undo_days
    }
  }
}
