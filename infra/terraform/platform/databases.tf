# Postgres for MLflow's registry and for Airflow. RDS keeps each password in Secrets Manager, and replaces it by itself.

resource "aws_security_group" "databases" {
  name        = "${var.name}-databases"
  description = "Ratchet: databases, from the cluster's pods"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "databases" {
  security_group_id            = aws_security_group.databases.id
  description                  = "Postgres, from nodes and pods of the cluster"
  referenced_security_group_id = module.cluster.cluster_primary_security_group_id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

module "database" {
  source   = "terraform-aws-modules/rds/aws"
  version  = "7.2.0"
  for_each = var.databases

  identifier           = "${var.name}-${each.key}"
  engine               = "postgres"
  engine_version       = var.postgres_version
  major_engine_version = var.postgres_version
  family               = "postgres${var.postgres_version}"
  instance_class       = each.value.instance_class

  allocated_storage     = each.value.storage_gib
  max_allocated_storage = each.value.most_gib
  storage_encrypted     = true
  kms_key_id            = module.key.key_arn

  db_name                     = each.key
  username                    = "ratchet"
  port                        = "5432"
  manage_master_user_password = true
  parameters                  = [{ name = "rds.force_ssl", value = "1" }]

  create_db_subnet_group = true
  subnet_ids             = var.subnet_ids
  vpc_security_group_ids = [aws_security_group.databases.id]
  publicly_accessible    = false
  multi_az               = each.value.multi_zone

  backup_retention_period         = 14
  copy_tags_to_snapshot           = true
  deletion_protection             = !var.destroy_data
  skip_final_snapshot             = var.destroy_data
  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = ["postgresql"]
}
