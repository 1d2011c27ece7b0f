# Lists of ARNs are managed policies: the inline policies of a role hold 10,240 characters in all, a managed one 6,144.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html

resource "aws_iam_policy" "launch" {
  name        = "${local.role_prefix}-launch"
  description = "Launching the task definitions of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Launch"
      Effect    = "Allow"
      Action    = "ecs:RunTask"
      Resource  = var.task_definition_arns
      Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arns } }
    }]
  })
}

resource "aws_iam_policy" "pass_roles" {
  name        = "${local.role_prefix}-pass-roles"
  description = "Passing roles to the tasks of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "PassRoles"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = var.pass_role_arns
      Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
    }]
  })
}

# ECS itself attaches the volumes, so the role is passed to another service than the tasks' roles.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/infrastructure_IAM_role.html
resource "aws_iam_policy" "volumes" {
  count = length(var.infrastructure_role_arns) > 0 ? 1 : 0

  name        = "${local.role_prefix}-volumes"
  description = "Managed EBS volumes of the tasks of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "PassInfrastructureRoles"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = var.infrastructure_role_arns
      Condition = { StringEquals = { "iam:PassedToService" = "ecs.amazonaws.com" } }
    }]
  })
}

resource "aws_iam_policy" "tell" {
  #checkov:skip=CKV_AWS_355:IAM defines no resource type for SendTaskSuccess and SendTaskFailure; a token is what they are limited to
  #checkov:skip=CKV_AWS_290:The same
  count = local.tells_ends ? 1 : 0

  name        = "${local.role_prefix}-tell"
  description = "Whom ${var.deployment} tells of the end of submissions"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for statement in [{
        Sid      = "StateMachines"
        Effect   = "Allow"
        Action   = ["states:SendTaskFailure", "states:SendTaskSuccess"]
        Resource = "*"
      }] : statement if var.task_tokens],
      [for statement in [{
        Sid      = "EventBuses"
        Effect   = "Allow"
        Action   = "events:PutEvents"
        Resource = var.event_bus_arns
      }] : statement if length(var.event_bus_arns) > 0],
    )
  })
}

resource "aws_iam_policy" "tasks" {
  name        = "${local.role_prefix}-tasks"
  description = "The tasks of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TagWhatIsLaunched"
        Effect    = "Allow"
        Action    = "ecs:TagResource"
        Resource  = local.task_arns
        Condition = { StringEquals = { "ecs:CreateAction" = "RunTask" } }
      },
      {
        Sid       = "Tasks"
        Effect    = "Allow"
        Action    = ["ecs:DescribeTasks", "ecs:StopTask"]
        Resource  = local.task_arns
        Condition = { ArnEquals = { "ecs:cluster" = local.cluster_arns } }
      },
    ]
  })
}

resource "aws_iam_policy" "runner" {
  name        = "${local.role_prefix}-runner"
  description = "What the task role of a pool's containers needs of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Work"
        Effect    = "Allow"
        Action    = "lambda:InvokeFunctionUrl"
        Resource  = module.work.arn
        Condition = { StringEquals = { "lambda:FunctionUrlAuthType" = "AWS_IAM" } }
      },
      # Function URLs created since October 2025 also require this. The condition excludes direct invocation.
      merge(
        { Sid = "WorkThroughUrl", Effect = "Allow", Action = "lambda:InvokeFunction", Resource = module.work.arn },
        local.invokes_work ? {} : { Condition = { Bool = { "lambda:InvokedViaFunctionUrl" = "true" } } },
      ),
      { Sid = "WaitForDoorbell", Effect = "Allow", Action = "sqs:ReceiveMessage", Resource = local.doorbells },
    ]
  })
}

resource "aws_iam_policy" "executor" {
  name        = "${local.role_prefix}-executor"
  description = "What an Airflow scheduler needs of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid       = "Submit"
          Effect    = "Allow"
          Action    = "lambda:InvokeFunctionUrl"
          Resource  = module.submit.arn
          Condition = { StringEquals = { "lambda:FunctionUrlAuthType" = "AWS_IAM" } }
        },
        # Function URLs created since October 2025 also require this. The condition excludes direct invocation.
        merge(
          { Sid = "SubmitThroughUrl", Effect = "Allow", Action = "lambda:InvokeFunction", Resource = module.submit.arn },
          var.function_url ? { Condition = { Bool = { "lambda:InvokedViaFunctionUrl" = "true" } } } : {},
        ),
        {
          Sid      = "Feed"
          Effect   = "Allow"
          Action   = "dynamodb:Query"
          Resource = "${local.table_arn}/index/feed"
        },
        # Not whole records: while in flight, they hold commands and environments.
        {
          Sid      = "LookUp"
          Effect   = "Allow"
          Action   = "dynamodb:BatchGetItem"
          Resource = local.table_arn
          Condition = {
            "ForAllValues:StringEquals" = {
              "dynamodb:Attributes" = [
                "submission_id",
                "state",
                "exit_code",
                "stop_code",
                "stopped_reason",
                "hint",
                "memory",
                "reason",
                "task_arn",
                "created_at",
                "attempts",
                "container_name",
                # The executor needs none of these; the Python client reads them.
                "profile",
                "labels",
                "runs_on",
                "runner_id",
                "launched_at",
                "started_at",
                "container_exited_at",
              ]
            }
            StringEqualsIfExists = { "dynamodb:Select" = "SPECIFIC_ATTRIBUTES" }
          }
        },
      ],
      [for statement in [{
        Sid      = "ReadWithKey"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = var.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "dynamodb.${local.region}.${data.aws_partition.current.dns_suffix}" }
        }
      }] : statement if var.kms_key_arn != null],
    )
  })
}

# For Airflow's API servers, whose UI shows a page of the bridge. It reads, and calls no function.
resource "aws_iam_policy" "page" {
  name        = "${local.role_prefix}-page"
  description = "What the page in Airflow's UI reads of ${var.deployment}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "Indexes"
          Effect   = "Allow"
          Action   = "dynamodb:Query"
          Resource = [for index in ["due", "feed", "pool"] : "${local.table_arn}/index/${index}"]
        },
        # Not whole records: while in flight, they hold commands and environments.
        {
          Sid      = "LookUp"
          Effect   = "Allow"
          Action   = "dynamodb:BatchGetItem"
          Resource = local.table_arn
          Condition = {
            "ForAllValues:StringEquals" = {
              "dynamodb:Attributes" = [
                "submission_id",
                "state",
                "profile",
                "labels",
                "priority",
                "attempt",
                "attempts",
                "refusals",
                "due",
                "pool",
                "reason",
                "stop_code",
                "stopped_reason",
                "exit_code",
                "hint",
                "memory",
                "cpu",
                "runs_on",
                "cluster",
                "container_name",
                "task_arn",
                "last_status",
                "launch_deadline",
                "created_at",
                "launched_at",
                "started_at",
                "container_exited_at",
                "stopped_at",
                "changed_at",
                "pooled",
                "runner",
              ]
            }
            StringEqualsIfExists = { "dynamodb:Select" = "SPECIFIC_ATTRIBUTES" }
          }
        },
        # The rows of the launch rate and of pools, which are no submissions.
        {
          Sid      = "Limits"
          Effect   = "Allow"
          Action   = "dynamodb:BatchGetItem"
          Resource = local.table_arn
          Condition = {
            "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["#launch-rate", "#pool/*"] }
            Null                      = { "dynamodb:LeadingKeys" = "false" }
          }
        },
      ],
      [for statement in [{
        Sid      = "ReadWithKey"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = var.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "dynamodb.${local.region}.${data.aws_partition.current.dns_suffix}" }
        }
      }] : statement if var.kms_key_arn != null],
    )
  })
}

# For a scheduler in another account, whose own role must be allowed to assume this one.
resource "aws_iam_role" "caller" {
  count = length(var.caller_principal_arns) > 0 ? 1 : 0

  name                 = "${local.role_prefix}-caller"
  description          = "Lets an Airflow scheduler of another account use ${var.deployment}"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = var.caller_principal_arns }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "caller" {
  count = length(aws_iam_role.caller)

  role       = aws_iam_role.caller[count.index].name
  policy_arn = aws_iam_policy.executor.arn
}

resource "aws_iam_role" "schedule" {
  name                 = "${local.role_prefix}-schedule"
  description          = "Lets EventBridge Scheduler start ${var.deployment}-reconcile"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "schedule" {
  name = "schedule"
  role = aws_iam_role.schedule.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "StartReconcile"
          Effect   = "Allow"
          Action   = "lambda:InvokeFunction"
          Resource = module.reconcile.arn
        },
        {
          Sid      = "DeadLetters"
          Effect   = "Allow"
          Action   = "sqs:SendMessage"
          Resource = aws_sqs_queue.reconcile_dead_letters.arn
        },
      ],
      [for statement in [{
        Sid      = "SendWithKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "sqs.${local.region}.${data.aws_partition.current.dns_suffix}" }
        }
      }] : statement if var.kms_key_arn != null],
    )
  })
}
