# Each alarm has a section in docs/operating.md.

locals {
  functions = {
    submit     = module.submit.function_name
    task-state = module.task_state.function_name
    reconcile  = module.reconcile.function_name
    work       = module.work.function_name
  }
  on_deployment = { Deployment = var.deployment }
  on_table      = { TableName = local.table_name }

  # By name: a metric, or an expression over several. What an alarm leaves out is: above 0, once, missing data is good.
  alarms = merge(local.function_alarms, local.url_alarms, {
    dead-letters = {
      description = "Events that never reached the table wait in the dead-letter queue"
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.event_dead_letters.name }
      statistic   = "Maximum"
      period      = 300
    }
    dead-letters-lost = {
      description = "Events were dropped and could not be kept as dead letters either"
      label       = "Events lost"
      expression  = "FILL(rule, 0) + FILL(function, 0)"
      period      = 300
      metrics = {
        rule = {
          namespace  = "AWS/Events"
          metric     = "InvocationsFailedToBeSentToDlq"
          dimensions = { RuleName = aws_cloudwatch_event_rule.task_state_change.name }
        }
        function = {
          namespace  = "AWS/Lambda"
          metric     = "DestinationDeliveryFailures"
          dimensions = { FunctionName = local.functions.task-state }
        }
      }
    }
    # Milliseconds. Lambda's two retries of one event take about three minutes.
    event-age = {
      description = "Events wait for task-state for more than five minutes"
      namespace   = "AWS/Lambda"
      metric      = "AsyncEventAge"
      dimensions  = { FunctionName = local.functions.task-state }
      statistic   = "Maximum"
      period      = 60
      threshold   = 300000
      periods     = 5
      datapoints  = 3
    }
    reconcile-stalled = {
      description = "No run of reconcile has succeeded for five times its schedule"
      label       = "No run succeeded"
      expression  = "((FILL(runs, 0) - FILL(errors, 0)) < 1) / (RUNNING_SUM(FILL(runs, 0)) > 0)"
      period      = var.reconcile_minutes * 60
      metrics = {
        for id, metric in { runs = "Invocations", errors = "Errors" } :
        id => { namespace = "AWS/Lambda", metric = metric, dimensions = { FunctionName = local.functions.reconcile } }
      }
      periods    = 6
      datapoints = 5
      missing    = "ignore"
    }
    # A throttled index has a metric of its own, and holds up writes to the table.
    table-throttles = {
      description = "DynamoDB throttles the table or one of its indexes"
      label       = "Throttled requests"
      expression  = join(" + ", [for pair in setproduct(local.operations, local.parts) : "FILL(${pair[0]}_${pair[1]}, 0)"])
      period      = 300
      metrics     = local.table_throttles
      periods     = 3
      datapoints  = 2
    }
    overdue = {
      description = "Submissions are overdue and no run of reconcile gets to them"
      namespace   = "EcsBridge"
      metric      = "Overdue"
      dimensions  = local.on_deployment
      statistic   = "Maximum"
      period      = 60
      periods     = 5
    }
    queue-age = {
      description = "The oldest queued submission waits for longer than QueueAgeAlarmSeconds"
      namespace   = "EcsBridge"
      metric      = "QueueAge"
      dimensions  = local.on_deployment
      statistic   = "Maximum"
      period      = 60
      threshold   = var.queue_age_alarm_seconds
      periods     = 5
    }
    blocked = {
      description = "A profile has had no capacity for fifteen minutes"
      namespace   = "EcsBridge"
      metric      = "Blocked"
      dimensions  = local.on_deployment
      statistic   = "Maximum"
      period      = 60
      periods     = 15
    }
    pools-failing = {
      description = "The runners of a pool have failed to start for ten minutes"
      namespace   = "EcsBridge"
      metric      = "PoolsFailing"
      dimensions  = local.on_deployment
      statistic   = "Maximum"
      period      = 60
    }
    pools-stuck = {
      description = "Submissions wait in a pool and nothing serves them"
      namespace   = "EcsBridge"
      metric      = "StuckInPools"
      dimensions  = local.on_deployment
      statistic   = "Maximum"
      period      = 60
    }
    runners-refused = {
      description = "Callers of work are not the runners that they claim to be"
      namespace   = "EcsBridge"
      metric      = "RunnersRefused"
      dimensions  = local.on_deployment
      statistic   = "Sum"
      period      = 300
    }
    unusable-events = {
      description = "Events of tasks could not be used and were ignored"
      namespace   = "EcsBridge"
      metric      = "UnusableEvents"
      dimensions  = local.on_deployment
      statistic   = "Sum"
      period      = 300
    }
    # A share, so that it fires at ten tasks an hour and not at a few late events of a hundred thousand tasks.
    repairs = {
      description = "Events are missing: reconcile found out too large a share of what happened"
      label       = "Share found out by reconcile, percent"
      expression  = "IF(FILL(repairs, 0) > 2, 100 * FILL(repairs, 0) / (FILL(repairs, 0) + FILL(succeeded, 0) + FILL(failed, 0)), 0)"
      period      = 900
      threshold   = var.repairs_alarm_percent
      metrics = {
        repairs   = { namespace = "EcsBridge", metric = "Repairs", dimensions = local.on_deployment }
        succeeded = { namespace = "EcsBridge", metric = "Terminal", dimensions = merge(local.on_deployment, { State = "succeeded" }) }
        failed    = { namespace = "EcsBridge", metric = "Terminal", dimensions = merge(local.on_deployment, { State = "failed" }) }
      }
    }
    unwanted-tasks = {
      description = "A task was alive that should not have been, and was stopped"
      label       = "Tasks"
      expression  = "FILL(orphans, 0) + FILL(seconds, 0)"
      period      = 300
      metrics = {
        for id, kind in { orphans = "orphan_task", seconds = "second_task" } :
        id => { namespace = "EcsBridge", metric = "Alarms", dimensions = merge(local.on_deployment, { Kind = kind }) }
      }
    }
    access-denied = {
      description = "ECS denies access to RunTask"
      namespace   = "EcsBridge"
      metric      = "Alarms"
      dimensions  = merge(local.on_deployment, { Kind = "access_denied" })
      statistic   = "Sum"
      period      = 300
    }
    untold = {
      description = "The end of submissions could not be told for a day"
      namespace   = "EcsBridge"
      metric      = "Alarms"
      dimensions  = merge(local.on_deployment, { Kind = "untold" })
      statistic   = "Sum"
      period      = 300
    }
    rejected = {
      description = "ECS refuses submissions for good"
      namespace   = "EcsBridge"
      metric      = "Terminal"
      dimensions  = merge(local.on_deployment, { State = "rejected" })
      statistic   = "Sum"
      period      = 300
    }
    lost = {
      description = "Submissions ended as lost: the results of their commands are unknown"
      namespace   = "EcsBridge"
      metric      = "Terminal"
      dimensions  = merge(local.on_deployment, { State = "lost" })
      statistic   = "Sum"
      period      = 300
    }
  })

  function_alarms = merge(
    {
      for name, function in local.functions : "${name}-errors" => {
        description = "Runs of ${name} failed"
        namespace   = "AWS/Lambda"
        metric      = "Errors"
        dimensions  = { FunctionName = function }
        statistic   = "Sum"
        period      = 300
      }
    },
    {
      for name, function in local.functions : "${name}-throttles" => {
        description = "Lambda throttles ${name}: no concurrency is left"
        namespace   = "AWS/Lambda"
        metric      = "Throttles"
        dimensions  = { FunctionName = function }
        statistic   = "Sum"
        period      = 300
        periods     = 3
        datapoints  = 2
      } if name != "reconcile"
    },
  )

  # submit answers 503 rather than failing where DynamoDB is unavailable, so its errors do not show that.
  url_alarms = {
    for name in ["submit", "work"] : "${name}-5xx" => {
      description = "The function URL of ${name} answers with 5xx"
      namespace   = "AWS/Lambda"
      metric      = "Url5xxCount"
      dimensions  = { FunctionName = local.functions[name] }
      statistic   = "Sum"
      period      = 300
      periods     = 3
      datapoints  = 2
    } if var.function_url
  }

  operations = ["read", "write"]
  parts      = ["table", "feed", "due", "pool"]
  table_throttles = merge([
    for operation in local.operations : {
      for part in local.parts : "${operation}_${part}" => {
        namespace  = "AWS/DynamoDB"
        metric     = "${title(operation)}ThrottleEvents"
        dimensions = part == "table" ? local.on_table : merge(local.on_table, { GlobalSecondaryIndexName = part })
      }
    }
  ]...)
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each = local.alarms

  alarm_name          = "${var.deployment}-${each.key}"
  alarm_description   = "${each.value.description}. See docs/operating.md"
  namespace           = try(each.value.namespace, null)
  metric_name         = try(each.value.metric, null)
  dimensions          = try(each.value.dimensions, null)
  statistic           = try(each.value.statistic, null)
  period              = try(each.value.metrics, null) == null ? each.value.period : null
  comparison_operator = try(each.value.comparison, "GreaterThanThreshold")
  threshold           = try(each.value.threshold, 0)
  evaluation_periods  = try(each.value.periods, 1)
  datapoints_to_alarm = try(each.value.datapoints, null)
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = var.alarm_topic_arn[*]
  ok_actions          = var.alarm_topic_arn[*]
  tags                = local.tags

  dynamic "metric_query" {
    for_each = try([each.value.expression], [])
    content {
      id          = "value"
      label       = each.value.label
      expression  = metric_query.value
      return_data = true
    }
  }

  dynamic "metric_query" {
    for_each = try(each.value.metrics, {})
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.metric
        dimensions  = metric_query.value.dimensions
        stat        = "Sum"
        period      = each.value.period
      }
    }
  }
}
