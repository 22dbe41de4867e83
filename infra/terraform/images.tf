# One repository an image, under this environment's name: two environments fit into one account. A tag never moves;
# deployments name digests.

resource "aws_ecr_repository" "image" {
  for_each             = var.images
  name                 = "${var.name}/${each.value}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.destroy_data

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "image" {
  for_each   = var.images
  repository = aws_ecr_repository.image[each.value].name

  # Only what has no tag: a tagged image may be what production names by digest, however old.
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Forget untagged images"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
      action       = { type = "expire" }
    }]
  })
}
