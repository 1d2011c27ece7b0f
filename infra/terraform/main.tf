# What template.yaml makes, for Terraform and OpenTofu. tests/infra/test_terraform.py evaluates both and compares them.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  account   = data.aws_caller_identity.current.account_id
  # IAM's names are those of the whole account.
  role_prefix = "${var.deployment}-${local.region}"

  cluster_arns = concat([var.cluster_arn], var.more_cluster_arns)
  # Tasks of the one cluster, or of any: then the condition ecs:cluster tells which.
  tasks        = length(var.more_cluster_arns) > 0 ? "*" : "${split("/", var.cluster_arn)[1]}/*"
  task_arns    = "arn:${local.partition}:ecs:${local.region}:${local.account}:task/${local.tasks}"
  invokes_work = var.work_direct_invocation || !var.function_url
  tells_ends   = var.task_tokens || length(var.event_bus_arns) > 0

  table_name = coalesce(var.restored_table, aws_dynamodb_table.table.name)
  # The queues that announce submissions to the idle runners of a pool. reconcile creates them, one for each version of a
  # profile.
  doorbells = "arn:${local.partition}:sqs:${local.region}:${local.account}:ecs-bridge-pool-????????????-${var.deployment}"

  table_arn  = "arn:${local.partition}:dynamodb:${local.region}:${local.account}:table/${local.table_name}"

  tags = { "ecs-bridge:deployment" = var.deployment }
}

# --- The table -----------------------------------------------------------------------------------

resource "aws_dynamodb_table" "table" {
  name                        = "${var.deployment}-submissions"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "submission_id"
  deletion_protection_enabled = true
  tags                        = local.tags

  attribute {
    name = "submission_id"
    type = "S"
  }

  attribute {
    name = "feed"
    type = "S"
  }

  attribute {
    name = "changed_at"
    type = "N"
  }

  attribute {
    name = "due"
    type = "S"
  }

  attribute {
    name = "check_at"
    type = "N"
  }

  attribute {
    name = "pool"
    type = "S"
  }

  attribute {
    name = "rank"
    type = "N"
  }

  global_secondary_index {
    name               = "feed"
    hash_key           = "feed"
    range_key          = "changed_at"
    projection_type    = "INCLUDE"
    non_key_attributes = ["state", "exit_code", "reason"]
  }

  global_secondary_index {
    name            = "due"
    hash_key        = "due"
    range_key       = "check_at"
    projection_type = "KEYS_ONLY"
  }

  global_secondary_index {
    name               = "pool"
    hash_key           = "pool"
    range_key          = "rank"
    projection_type    = "INCLUDE"
    non_key_attributes = ["priority"]
  }

  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = var.backup_days
  }

  # Here because everything else needs the table: a plan that breaks a rule makes nothing.
  lifecycle {
    precondition {
      condition     = (var.profiles == null) != (var.profiles_layer_arn == null)
      error_message = "Give profiles or profiles_layer_arn, not both."
    }
    precondition {
      condition     = (var.code_bucket == null) != (var.code_directory == null)
      error_message = "Give code_bucket or code_directory, not both."
    }
    precondition {
      condition = !var.function_url || !contains([
        "ap-east-2",
        "ap-south-2",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-west-1",
        "eu-central-2",
        "eu-south-2",
        "il-central-1",
        "me-central-1",
      ], local.region)
      error_message = "Lambda has no function URLs in this region. Set function_url to false, and let callers invoke submit."
    }
  }

  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn[*]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }
}

# --- Dead letters --------------------------------------------------------------------------------

# Events that never reached the table. See "Redriving dead letters" in docs/operating.md.
resource "aws_sqs_queue" "event_dead_letters" {
  name                      = "${var.deployment}-event-dead-letters"
  message_retention_seconds = var.dead_letter_seconds
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
  tags                      = local.tags
}

resource "aws_sqs_queue_policy" "event_dead_letters" {
  queue_url = aws_sqs_queue.event_dead_letters.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.event_dead_letters.arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.task_state_change.arn } }
    }]
  })
}

# Dropped runs of reconcile, kept for diagnosis. The next run does their work, so no alarm watches this queue.
resource "aws_sqs_queue" "reconcile_dead_letters" {
  name                      = "${var.deployment}-reconcile-dead-letters"
  message_retention_seconds = var.dead_letter_seconds
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
  tags                      = local.tags
}
