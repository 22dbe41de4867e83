region             = "eu-central-1"
name               = "ratchet"
kubernetes_version = "1.34"
vpc_id             = "vpc-0123456789abcdef0"
subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
api_open_to        = ["203.0.113.0/24"]
