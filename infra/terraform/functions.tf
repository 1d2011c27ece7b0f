locals {
  # What the four functions have in common.
  shared = {
    deployment               = var.deployment
    role_prefix              = local.role_prefix
    architecture             = var.architecture
    code_bucket              = var.code_bucket
    code_prefix              = var.code_prefix
    code_directory           = var.code_directory
    subnet_ids               = var.subnet_ids
    security_group_ids       = var.security_group_ids
    kms_key_arn              = var.kms_key_arn
    permissions_boundary_arn = var.permissions_boundary_arn
    log_level                = var.log_level
    log_retention_days       = var.log_retention_days
    tags                     = local.tags
    variables = {
      ECS_BRIDGE_DEPLOYMENT     = var.deployment
      ECS_BRIDGE_TABLE          = local.table_name
      ECS_BRIDGE_CLUSTER        = var.cluster_arn
      ECS_BRIDGE_RETENTION_DAYS = tostring(var.retention_days)
    }
  }

  # What a function needs that launches, and how runners reach work: health tells it too.
  launching = {
    ECS_BRIDGE_PROFILES      = var.profiles
    ECS_BRIDGE_PROFILES_FILE = var.profiles_layer_arn == null ? null : "/opt/profiles.json"
    ECS_BRIDGE_LAUNCH_RATE   = tostring(var.launch_rate)
    ECS_BRIDGE_LAUNCH_BURST  = tostring(var.launch_burst)
    ECS_BRIDGE_CLUSTERS      = length(var.more_cluster_arns) > 0 ? join(",", var.more_cluster_arns) : null
    ECS_BRIDGE_WORK_URL      = local.invokes_work ? null : aws_lambda_function_url.work[0].function_url
    ECS_BRIDGE_WORK_FUNCTION = local.invokes_work ? module.work.arn : null
  }
  launching_layers = var.profiles_layer_arn[*]
  launching_policies = merge(
    { launch = aws_iam_policy.launch.arn, pass_roles = aws_iam_policy.pass_roles.arn, tasks = aws_iam_policy.tasks.arn },
    length(var.infrastructure_role_arns) > 0 ? { volumes = aws_iam_policy.volumes[0].arn } : {},
  )
  telling_policies = local.tells_ends ? { tell = aws_iam_policy.tell[0].arn } : {}
}

# --- submit --------------------------------------------------------------------------------------

module "submit" {
  source = "./function"

  shared      = local.shared
  name        = "submit"
  description = "Records submissions and stops, launches tasks"
  memory      = var.submit_memory
  concurrency = var.submit_concurrency
  # The protocol allows 120 s at most: a launch claimed by a run must not outlive its lease.
  timeout   = 60
  layers    = local.launching_layers
  variables = merge(local.launching, {
    ECS_BRIDGE_RECONCILE_FUNCTION = module.reconcile.arn
    ECS_BRIDGE_TASK_TOKENS        = tostring(var.task_tokens)
    ECS_BRIDGE_EVENT_BUSES        = length(var.event_bus_arns) > 0 ? join(",", var.event_bus_arns) : null
  })
  policies  = local.launching_policies

  statements = [
    {
      Sid      = "Records"
      Effect   = "Allow"
      Action   = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
      Resource = local.table_arn
    },
    {
      Sid      = "HealthOfCluster"
      Effect   = "Allow"
      Action   = "ecs:DescribeClusters"
      Resource = local.cluster_arns
    },
    {
      Sid    = "HealthOfProfiles"
      Effect = "Allow"
      Action = "ecs:DescribeTaskDefinition"
      # IAM defines no resource type and no condition key for this action.
      Resource = "*"
    },
    {
      Sid      = "WakeReconcile"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = module.reconcile.arn
    },
    {
      Sid      = "RingDoorbells"
      Effect   = "Allow"
      Action   = "sqs:SendMessage"
      Resource = local.doorbells
    },
  ]
}

resource "aws_lambda_function_url" "submit" {
  count = var.function_url ? 1 : 0

  function_name      = module.submit.function_name
  authorization_type = "AWS_IAM"
  invoke_mode        = "BUFFERED"
}

# --- task-state ----------------------------------------------------------------------------------

module "task_state" {
  source = "./function"

  shared      = local.shared
  name        = "task-state"
  description = "Records Task State Change events of ECS"
  memory      = var.task_state_memory
  concurrency = var.task_state_concurrency
  timeout     = 15
  variables   = { ECS_BRIDGE_RECONCILE_FUNCTION = module.reconcile.arn }

  # Six hours, the most that Lambda offers: the event may be the only source of an exit code.
  asynchronous = { max_age = 21600, max_retries = 2, dead_letters_arn = aws_sqs_queue.event_dead_letters.arn }

  policies = local.telling_policies

  statements = [
    {
      Sid      = "Records"
      Effect   = "Allow"
      Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
      Resource = local.table_arn
    },
    {
      Sid       = "StopWhatShouldNotLive"
      Effect    = "Allow"
      Action    = "ecs:StopTask"
      Resource  = local.task_arns
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arns } }
    },
    {
      Sid      = "WakeReconcile"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = module.reconcile.arn
    },
  ]
}

resource "aws_cloudwatch_event_rule" "task_state_change" {
  name        = "${var.deployment}-task-state-change"
  description = "Tells ${var.deployment}-task-state of its tasks that run, and of containers that have ended"
  tags        = local.tags

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = local.cluster_arns
      startedBy  = [{ prefix = "${var.deployment}/" }]
      "$or" = [
        { lastStatus = ["RUNNING", "STOPPED"] },
        { containers = { exitCode = [{ exists = true }] } },
      ]
    }
  })
}

resource "aws_cloudwatch_event_target" "task_state_change" {
  rule = aws_cloudwatch_event_rule.task_state_change.name
  arn  = module.task_state.arn

  retry_policy {
    maximum_event_age_in_seconds = 86400
    maximum_retry_attempts       = 185
  }

  dead_letter_config {
    arn = aws_sqs_queue.event_dead_letters.arn
  }
}

resource "aws_lambda_permission" "task_state_change" {
  action        = "lambda:InvokeFunction"
  function_name = module.task_state.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.task_state_change.arn
}

# --- reconcile -----------------------------------------------------------------------------------

module "reconcile" {
  source = "./function"

  shared      = local.shared
  name        = "reconcile"
  description = "Launches queued submissions, and repairs what no event reported"
  memory      = var.reconcile_memory
  concurrency = var.reconcile_concurrency
  # The most that the protocol allows: a launch claimed by a run must not outlive its lease.
  timeout   = 120
  layers    = local.launching_layers
  variables = local.launching
  policies  = merge(local.launching_policies, local.telling_policies)

  # The next run comes within a minute, so a failed one is not retried.
  asynchronous = { max_age = 60, max_retries = 0, dead_letters_arn = aws_sqs_queue.reconcile_dead_letters.arn }

  statements = [
    {
      Sid      = "WhatIsDue"
      Effect   = "Allow"
      Action   = "dynamodb:Query"
      Resource = ["${local.table_arn}/index/due", "${local.table_arn}/index/pool"]
    },
    {
      Sid    = "Records"
      Effect = "Allow"
      # PutItem creates runners.
      Action   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
      Resource = local.table_arn
    },
    {
      Sid    = "FindTasks"
      Effect = "Allow"
      Action = "ecs:ListTasks"
      # Its only resource type is the container instance, which a listing by startedBy does not name.
      # The condition restricts the cluster.
      Resource  = "*"
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arns } }
    },
    {
      Sid      = "Doorbells"
      Effect   = "Allow"
      Action   = ["sqs:CreateQueue", "sqs:DeleteQueue", "sqs:SendMessage"]
      Resource = local.doorbells
    },
  ]
}

resource "aws_scheduler_schedule" "reconcile" {
  #checkov:skip=CKV_AWS_297:The schedule holds an empty object and nothing else
  name                = "${var.deployment}-reconcile"
  schedule_expression = "rate(${var.reconcile_minutes} ${var.reconcile_minutes == 1 ? "minute" : "minutes"})"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = module.reconcile.arn
    role_arn = aws_iam_role.schedule.arn
    input    = "{}"

    retry_policy {
      maximum_event_age_in_seconds = 60
      maximum_retry_attempts       = 3
    }

    dead_letter_config {
      arn = aws_sqs_queue.reconcile_dead_letters.arn
    }
  }
}

# --- work ----------------------------------------------------------------------------------------

module "work" {
  source = "./function"

  shared      = local.shared
  name        = "work"
  description = "Gives commands to the runners of pools, and records how they ended"
  memory      = var.work_memory
  concurrency = var.work_concurrency
  timeout     = 15

  variables = {
    # Lambda's limit of 4 KB on all variables is why these are not pass_role_arns.
    ECS_BRIDGE_TASK_ROLES        = length(var.runner_role_arns) > 0 ? join(",", var.runner_role_arns) : "arn:${local.partition}:iam::${local.account}:role/*"
    ECS_BRIDGE_DIRECT_INVOCATION = tostring(local.invokes_work)
    # By name: reconcile's own variables name this function.
    ECS_BRIDGE_RECONCILE_FUNCTION = "arn:${local.partition}:lambda:${local.region}:${local.account}:function:${var.deployment}-reconcile"
  }

  statements = [
    {
      Sid      = "Records"
      Effect   = "Allow"
      Action   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
      Resource = local.table_arn
    },
    {
      Sid      = "WhatWaits"
      Effect   = "Allow"
      Action   = "dynamodb:Query"
      Resource = "${local.table_arn}/index/pool"
    },
    {
      Sid      = "WakeReconcile"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = "arn:${local.partition}:lambda:${local.region}:${local.account}:function:${var.deployment}-reconcile"
    },
  ]
}

resource "aws_lambda_function_url" "work" {
  count = var.function_url ? 1 : 0

  function_name      = module.work.function_name
  authorization_type = "AWS_IAM"
  invoke_mode        = "BUFFERED"
}
