# One function of the bridge, with its log and its role.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  full_name = "${var.shared.deployment}-${var.name}"
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  account   = data.aws_caller_identity.current.account_id
  # Services by which the key may be used, as in kms:ViaService.
  services  = "${local.region}.${data.aws_partition.current.dns_suffix}"
  has_key   = var.shared.kms_key_arn != null
  has_queue = var.asynchronous != null
  in_vpc    = length(var.shared.subnet_ids) > 0
  zip       = "${var.shared.architecture}/${var.name}.zip"
}

resource "aws_cloudwatch_log_group" "logs" {
  #checkov:skip=CKV_AWS_338:How long logs are kept is the owner's choice (log_retention_days)
  name              = "/aws/lambda/${local.full_name}"
  retention_in_days = var.shared.log_retention_days
  kms_key_id        = var.shared.kms_key_arn
  tags              = var.shared.tags
}

resource "aws_iam_role" "role" {
  name                 = "${var.shared.role_prefix}-${var.name}"
  description          = "Execution role of ${local.full_name}"
  permissions_boundary = var.shared.permissions_boundary_arn
  tags                 = var.shared.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "policies" {
  for_each = var.policies

  role       = aws_iam_role.role.name
  policy_arn = each.value
}

resource "aws_iam_role_policy" "own" {
  name = var.name
  role = aws_iam_role.role.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      var.statements,
      [{
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws/lambda/${local.full_name}:log-stream:*"
      }],
      [for statement in [{
        Sid      = "DeadLetters"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = try(var.asynchronous.dead_letters_arn, "")
      }] : statement if local.has_queue],
      [for statement in [{
        Sid      = "SendWithKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.shared.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "sqs.${local.services}" }
        }
      }] : statement if local.has_queue && local.has_key],
      # The table, and the function's own variables.
      [for statement in [{
        Sid      = "ReadWithKey"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = var.shared.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = ["dynamodb.${local.services}", "lambda.${local.services}"] }
        }
      }] : statement if local.has_key],
      # Lambda itself uses it to attach the function to the VPC. IAM defines no resource type for the Describe actions,
      # and Lambda calls the others before an interface exists. The condition denies them to the function's own code: only
      # its requests carry the key.
      [for statement in [{
        Sid    = "NetworkInterfaces"
        Effect = "Allow"
        Action = [
          "ec2:AssignPrivateIpAddresses",
          "ec2:CreateNetworkInterface",
          "ec2:DeleteNetworkInterface",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSubnets",
          "ec2:UnassignPrivateIpAddresses",
        ]
        Resource  = "*"
        Condition = { Null = { "lambda:SourceFunctionArn" = "true" } }
      }] : statement if local.in_vpc],
    )
  })
}

resource "aws_lambda_function" "function" {
  #checkov:skip=CKV_AWS_116:Events that fail go to a queue by the event invoke config, which carries the error beside the event
  #checkov:skip=CKV_AWS_272:The zips of a release are not signed for Lambda; SHA256SUMS of a release says what is in them
  #checkov:skip=CKV_AWS_50:Each transition is logged once, with the submission's id, and traces would cost more than the functions
  function_name                  = local.full_name
  description                    = var.description
  role                           = aws_iam_role.role.arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.shared.architecture]
  memory_size                    = var.memory
  timeout                        = var.timeout
  reserved_concurrent_executions = var.concurrency
  layers                         = var.layers
  kms_key_arn                    = var.shared.kms_key_arn
  tags                           = var.shared.tags

  s3_bucket        = var.shared.code_bucket
  s3_key           = var.shared.code_bucket == null ? null : "${var.shared.code_prefix}${local.zip}"
  filename         = var.shared.code_directory == null ? null : "${var.shared.code_directory}/${local.zip}"
  source_code_hash = var.shared.code_directory == null ? null : filebase64sha256("${var.shared.code_directory}/${local.zip}")

  environment {
    variables = { for name, value in merge(var.shared.variables, var.variables) : name => value if value != null }
  }

  logging_config {
    log_group             = aws_cloudwatch_log_group.logs.name
    log_format            = "JSON"
    application_log_level = var.shared.log_level
    # Lambda's own lines about each successful invocation would be most of the log.
    system_log_level = "WARN"
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc ? [var.shared.subnet_ids] : []
    content {
      subnet_ids         = vpc_config.value
      security_group_ids = var.shared.security_group_ids
    }
  }

  # Lambda checks at creation that the role can reach VPC and key.
  depends_on = [aws_iam_role_policy.own]
}

resource "aws_lambda_function_event_invoke_config" "asynchronous" {
  count = local.has_queue ? 1 : 0

  function_name                = aws_lambda_function.function.function_name
  maximum_event_age_in_seconds = var.asynchronous.max_age
  maximum_retry_attempts       = var.asynchronous.max_retries

  destination_config {
    on_failure {
      destination = var.asynchronous.dead_letters_arn
    }
  }
}
