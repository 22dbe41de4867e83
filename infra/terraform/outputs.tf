output "lake" {
  description = "The lake, as --lake and RATCHET_LAKE take it."
  value       = trimsuffix("s3://${aws_s3_bucket.this["lake"].id}/${var.lake_prefix}", "/")
}

output "artifacts_bucket" {
  description = "Bucket for Argo's artifact repository (keys under ratchet/) and MLflow's artifacts (under mlflow/)."
  value       = aws_s3_bucket.this["artifacts"].id
}

output "image_repositories" {
  description = "Where to push each image."
  value       = { for name, repository in aws_ecr_repository.image : name => repository.repository_url }
}

output "role_arns" {
  description = "For each service account's annotation eks.amazonaws.com/role-arn."
  value       = { for name, role in aws_iam_role.service_account : name => role.arn }
}
