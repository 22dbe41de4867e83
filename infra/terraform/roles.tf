# One role for each service account, with just the folders that its code touches. Airflow's own has nothing of the
# lake: its tasks start pods and pass names, and its logs go to the other bucket.

locals {
  # Every writer asks the bucket first whether it honours conditional writes.
  probe = ".ratchet-conditional-write-probe"

  known_access = {
    # collect_triplets to register_adapter. It never releases, and cannot write what a user said or who is live.
    steps = {
      read      = ["*"]
      write     = ["adapters", "collections", "daily_failures", "datasets", "eval_answers", "judgements", "manifests", "parts", "quarantine", "queue", "references", "registry", "splits", "tables", "validated", "verdicts", "work"]
      delete    = ["parts", "tables", "work"]
      artifacts = ["ratchet"]
      shows     = []
    }
    # release_adapter and the reconciler.
    release = {
      read      = ["adapters", "canaries", "ledger", "leases", "manifests", "registry", "releases", "verdicts"]
      write     = ["leases", "ledger", "manifests", "releases"]
      delete    = []
      artifacts = ["ratchet"]
      shows     = []
    }
    gate = {
      read      = ["canaries", "duels", "events", "ledger"]
      write     = ["canaries"]
      delete    = []
      artifacts = []
      shows     = []
    }
    # hold-duels: it reads what users asked and were answered, and writes who won.
    duels = {
      read      = ["canaries", "duels", "events", "judgements", "ledger"]
      write     = ["duels", "judgements"]
      delete    = []
      artifacts = []
      shows     = []
    }
    # It faces users: it can add events and see nothing, not even those.
    router = {
      read      = []
      write     = ["events"]
      delete    = []
      artifacts = []
      shows     = []
    }
    # Its syncer: what the ledger names, and the files of that.
    model-pool = {
      read      = ["adapters", "ledger"]
      write     = []
      delete    = []
      artifacts = []
      shows     = []
    }
    mlflow = {
      read      = []
      write     = []
      delete    = []
      artifacts = ["mlflow"]
      shows     = []
    }
    # Argo's server shows reports and logs of workflows whose pods are gone. It signs in to S3 as itself.
    argo-server = {
      read      = []
      write     = []
      delete    = []
      artifacts = []
      shows     = ["ratchet"]
    }
    airflow = {
      read      = []
      write     = []
      delete    = []
      artifacts = ["airflow"]
      shows     = []
    }
    # Kubeflow's one account: steps and release together.
    pipelines = {
      read      = ["*"]
      write     = ["adapters", "collections", "daily_failures", "datasets", "eval_answers", "judgements", "leases", "ledger", "manifests", "parts", "quarantine", "queue", "references", "registry", "releases", "splits", "tables", "validated", "verdicts", "work"]
      delete    = ["parts", "tables", "work"]
      artifacts = ["ratchet"]
      shows     = []
    }
  }
  # Where a role's service account is another than ratchet/ratchet-<role>.
  known_accounts = {
    airflow     = ["airflow/airflow-api-server", "airflow/airflow-scheduler", "airflow/airflow-triggerer"]
    argo-server = ["argo/argo-workflows-server"]
  }
  access = { for role, reach in local.known_access : role => reach if role != "pipelines" || contains(keys(var.service_accounts), role) }

  lake_arn      = aws_s3_bucket.this["lake"].arn
  artifacts_arn = aws_s3_bucket.this["artifacts"].arn
  issuer        = split("oidc-provider/", var.oidc_provider_arn)[1]
}

data "aws_iam_policy_document" "trust" {
  for_each = local.access

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values = [
        for account in lookup(merge(local.known_accounts, var.service_accounts), each.key, ["ratchet/ratchet-${each.key}"]) :
        "system:serviceaccount:${replace(account, "/", ":")}"
      ]
    }
  }
}

data "aws_iam_policy_document" "access" {
  for_each = local.access

  dynamic "statement" {
    for_each = length(each.value.read) > 0 ? [1] : []

    content {
      sid       = "Read"
      actions   = ["s3:GetObject"]
      resources = formatlist("${local.lake_arn}/${local.lake}%s/*", each.value.read)
    }
  }

  dynamic "statement" {
    for_each = length(each.value.read) > 0 ? [1] : []

    content {
      sid       = "List"
      actions   = ["s3:ListBucket"]
      resources = [local.lake_arn]

      # Without a condition for those who read everything: they ask for objects that may not be there (Delta tables
      # begin so), and S3 says 404 only to who may list; to others 403. A GET has no prefix to hold against a condition.
      dynamic "condition" {
        for_each = contains(each.value.read, "*") ? [] : [1]

        content {
          test     = "StringLike"
          variable = "s3:prefix"
          values   = formatlist("${local.lake}%s/*", each.value.read)
        }
      }
    }
  }

  dynamic "statement" {
    for_each = length(each.value.write) > 0 ? [1] : []

    content {
      sid     = "Write"
      actions = ["s3:AbortMultipartUpload", "s3:PutObject"]
      resources = concat(
        formatlist("${local.lake_arn}/${local.lake}%s/*", each.value.write),
        ["${local.lake_arn}/${local.lake}${local.probe}"],
      )
    }
  }

  dynamic "statement" {
    for_each = length(each.value.delete) > 0 ? [1] : []

    content {
      sid       = "Delete"
      actions   = ["s3:DeleteObject"]
      resources = formatlist("${local.lake_arn}/${local.lake}%s/*", each.value.delete)
    }
  }

  dynamic "statement" {
    for_each = length(each.value.artifacts) > 0 ? [1] : []

    content {
      sid       = "Artifacts"
      actions   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      resources = formatlist("${local.artifacts_arn}/%s/*", each.value.artifacts)
    }
  }

  dynamic "statement" {
    for_each = length(each.value.shows) > 0 ? [1] : []

    content {
      sid       = "ReadArtifacts"
      actions   = ["s3:GetObject"]
      resources = formatlist("${local.artifacts_arn}/%s/*", each.value.shows)
    }
  }

  dynamic "statement" {
    for_each = length(concat(each.value.artifacts, each.value.shows)) > 0 ? [1] : []

    content {
      sid       = "ListArtifacts"
      actions   = ["s3:ListBucket"]
      resources = [local.artifacts_arn]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = formatlist("%s/*", concat(each.value.artifacts, each.value.shows))
      }
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn != null ? [1] : []

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [var.kms_key_arn]
    }
  }
}

resource "aws_iam_role" "service_account" {
  for_each           = local.access
  name               = "${var.name}-${each.key}"
  description        = "Ratchet: ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy" "access" {
  for_each = local.access
  name     = "lake"
  role     = aws_iam_role.service_account[each.key].name
  policy   = data.aws_iam_policy_document.access[each.key].json
}
