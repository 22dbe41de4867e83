# Two buckets. The lake holds what Ratchet knows and is never expired; artifacts holds what tools keep for themselves
# (Argo's and Kubeflow's files, MLflow's).

locals {
  buckets = toset(["lake", "artifacts"])
  lake    = var.lake_prefix == "" ? "" : "${var.lake_prefix}/"

  smallest_cold_bytes = 128 * 1024

  # Each folder of the lake is in one of these three; tests/infra/test_terraform_roles.py compares them with the code.
  # Written with If-None-Match and never again: an overwrite here is a bug or worse.
  create_only = ["canaries", "collections", "duels", "eval_answers", "events", "judgements", "ledger", "manifests", "registry", "releases", "splits", "verdicts"]
  # Named by the digest of what they hold: written again, they would hold the same. Large files come in parts.
  by_digest = ["adapters", "daily_failures", "datasets", "quarantine", "references", "validated"]
  # Overwritten or deleted in the course of things; their old versions are the undo.
  mutable = ["leases", "parts", "queue", "tables", "work"]
  # Who was live when, and what was made from what. Nobody deletes these, not even an administrator in a hurry.
  permanent = ["ledger", "manifests"]
  # Old versions arise in the other folders only where an administrator deletes, as for a person who wants to be
  # forgotten: there, too, they are an undo, and no more than that.
  forgotten = setsubtract(concat(local.create_only, local.by_digest, local.mutable), local.permanent)
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

  # Imports, and routers under load, write files that gain by it. S3 moves no object below 128 KiB by itself, and bills
  # one of that size as a whole, so the filter says what happens.
  dynamic "rule" {
    for_each = var.events_cold_after_days == null ? [] : [var.events_cold_after_days]

    content {
      id     = "large-events-to-cheaper-storage"
      status = "Enabled"

      filter {
        and {
          prefix                   = "${local.lake}events/"
          object_size_greater_than = local.smallest_cold_bytes - 1
        }
      }

      transition {
        days          = rule.value
        storage_class = "STANDARD_IA"
      }

      # Not GLACIER: a lake that is read again must not wait hours for each file.
      transition {
        days          = rule.value + 180
        storage_class = "GLACIER_IR"
      }
    }
  }

  # A training that is done removes its checkpoints. Of one that was given up, nobody does.
  rule {
    id     = "forget-trainings-given-up"
    status = "Enabled"

    filter {
      prefix = "${local.lake}work/"
    }

    expiration {
      days = var.work_days
    }
  }

  dynamic "rule" {
    for_each = local.forgotten

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

  # What is left of a deleted object once its versions are gone: a marker that every listing reads.
  rule {
    id     = "forget-delete-markers"
    status = "Enabled"

    filter {
      prefix = local.lake
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "abort-unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
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
