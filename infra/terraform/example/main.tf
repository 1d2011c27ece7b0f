# Creates a cluster, a task definition and the bridge in the default VPC. Use it to try the bridge, and copy from it.
#   terraform init && terraform apply -var code_directory=../../../dist

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

variable "name" {
  description = "Name of the cluster, the task definition family and the log group"
  type        = string
  default     = "ecs-bridge-example"
}

variable "image" {
  description = "Image of the container that commands run in. It must be in a public registry, or the execution role needs more permissions"
  type        = string
  default     = "public.ecr.aws/amazonlinux/amazonlinux:2023-minimal"
}

variable "code_directory" {
  description = "Folder with the files of a release, such as dist after `make release`"
  type        = string
}

data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
}

# Tasks reach the internet through their own addresses, and no inbound traffic reaches them.
resource "aws_security_group" "tasks" {
  #checkov:skip=CKV2_AWS_5:RunTask attaches it to tasks (see the profile below)
  name        = var.name
  description = "Tasks of ${var.name}, with outbound HTTPS and no inbound traffic"
  vpc_id      = data.aws_vpc.default.id

  egress {
    description = "HTTPS"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_ecs_cluster" "cluster" {
  #checkov:skip=CKV_AWS_65:Container Insights costs money for each task, and the bridge has its own metrics
  name = var.name
}

resource "aws_ecs_cluster_capacity_providers" "cluster" {
  cluster_name       = aws_ecs_cluster.cluster.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_cloudwatch_log_group" "logs" {
  #checkov:skip=CKV_AWS_158:An example, which CloudWatch Logs encrypts with its own key
  #checkov:skip=CKV_AWS_338:An example, for which two weeks of logs are enough
  name              = "/ecs/${var.name}"
  retention_in_days = 14
}

resource "aws_iam_role" "tasks" {
  # The permissions that ECS needs to start a task. The commands have no permissions until you add some.
  for_each = toset(["execution", "task"])

  name = "${var.name}-${each.key}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_iam_role_policy" "logs" {
  name = "logs"
  role = aws_iam_role.tasks["execution"].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.logs.arn}:log-stream:*"
    }]
  })
}

resource "aws_ecs_task_definition" "jobs" {
  #checkov:skip=CKV_AWS_336:Commands may write to their container
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 256
  memory                   = 512
  execution_role_arn       = aws_iam_role.tasks["execution"].arn
  task_role_arn            = aws_iam_role.tasks["task"].arn

  container_definitions = jsonencode([{
    name      = "main"
    image     = var.image
    essential = true
    command   = ["true"]
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.logs.name
        awslogs-region        = data.aws_region.current.region
        awslogs-stream-prefix = "main"
      }
    }
  }])
}

# CloudFormation reads the template from this bucket, and Lambda reads the zip files.
resource "aws_s3_bucket" "code" {
  #checkov:skip=CKV_AWS_18:An example, and the files of a release are public
  #checkov:skip=CKV_AWS_21:Each release has its own prefix
  #checkov:skip=CKV_AWS_144:An example, and the files of a release are public
  #checkov:skip=CKV_AWS_145:An example, which S3 encrypts with its own key
  #checkov:skip=CKV2_AWS_61:Terraform deletes objects that no stack uses
  #checkov:skip=CKV2_AWS_62:No consumer waits for its files
  bucket_prefix = "${var.name}-"
}

resource "aws_s3_bucket_public_access_block" "code" {
  bucket                  = aws_s3_bucket.code.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

module "bridge" {
  source = "../"

  code_bucket          = aws_s3_bucket.code.bucket
  code_directory       = var.code_directory
  cluster_arn          = aws_ecs_cluster.cluster.arn
  task_definition_arns = ["${aws_ecs_task_definition.jobs.arn_without_revision}:*"]
  pass_role_arns       = [for role in aws_iam_role.tasks : role.arn]

  profiles = jsonencode({
    default = {
      container_name = "main"
      run_task = {
        taskDefinition           = var.name
        capacityProviderStrategy = [{ capacityProvider = "FARGATE", weight = 1 }]
        networkConfiguration = {
          awsvpcConfiguration = {
            subnets        = data.aws_subnets.default.ids
            securityGroups = [aws_security_group.tasks.id]
            assignPublicIp = "ENABLED"
          }
        }
      }
    }
  })
}

output "submit_url" {
  description = "URL of the HTTP API (ECS_BRIDGE_URL of the CLI)"
  value       = module.bridge.submit_url
}

output "table_name" {
  description = "Name of the table that the executor reads (ECS_BRIDGE_TABLE of the CLI)"
  value       = module.bridge.table_name
}
