locals {
  # In rows of three. What a widget leaves out is: sums by the minute.
  widgets = [
    {
      title = "Submissions and launches"
      metrics = [
        ["EcsBridge", "Submissions", "Deployment", var.deployment],
        ["EcsBridge", "Launches", "Deployment", var.deployment],
        ["EcsBridge", "FallbackLaunches", "Deployment", var.deployment],
      ]
    },
    { title = "Ended, by state", metrics = [[local.searches.Terminal]] },
    { title = "Refused launches, by reason", metrics = [[local.searches.LaunchRefusals]] },
    {
      title   = "Seconds from submission to start"
      metrics = [for stat in ["p50", "p90", "p99"] : ["EcsBridge", "SubmissionToStart", "Deployment", var.deployment, { stat = stat, label = stat }]]
    },
    {
      title   = "Seconds from container exit to record"
      metrics = [for stat in ["p50", "p90", "p99"] : ["EcsBridge", "ExitToRecord", "Deployment", var.deployment, { stat = stat, label = stat }]]
    },
    {
      title = "Found out by reconcile"
      metrics = [
        ["EcsBridge", "Repairs", "Deployment", var.deployment],
        ["EcsBridge", "Overdue", "Deployment", var.deployment, { stat = "Maximum" }],
        ["EcsBridge", "UnusableEvents", "Deployment", var.deployment],
      ]
    },
    {
      title   = "Runs"
      metrics = [for name in local.shown : ["AWS/Lambda", "Invocations", "FunctionName", local.functions[name], { label = name }]]
    },
    {
      title = "Errors and throttles"
      metrics = concat(
        [for name in local.shown : ["AWS/Lambda", "Errors", "FunctionName", local.functions[name], { label = "${name} errors" }]],
        [for name in local.shown : ["AWS/Lambda", "Throttles", "FunctionName", local.functions[name], { label = "${name} throttles" }]],
      )
    },
    {
      title   = "Milliseconds a run, p99"
      stat    = "p99"
      metrics = [for name in slice(local.shown, 0, 3) : ["AWS/Lambda", "Duration", "FunctionName", local.functions[name], { label = name }]]
    },
    {
      title  = "Dead letters"
      stat   = "Maximum"
      period = 300
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.event_dead_letters.name, { label = "events" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.reconcile_dead_letters.name, { label = "reconcile" }],
      ]
    },
    {
      title   = "Function URL"
      metrics = [for pair in local.of_url : ["AWS/Lambda", pair[0], "FunctionName", local.functions.submit, { label = pair[1] }]]
    },
    {
      title = "Table: units consumed"
      metrics = [
        ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", local.table_name],
        ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", local.table_name],
      ]
    },
    {
      title = "Queue"
      stat  = "Maximum"
      metrics = [
        ["EcsBridge", "QueueDepth", "Deployment", var.deployment],
        ["EcsBridge", "Blocked", "Deployment", var.deployment],
      ]
    },
    {
      title   = "Age of the oldest queued submission, seconds"
      stat    = "Maximum"
      metrics = [["EcsBridge", "QueueAge", "Deployment", var.deployment]]
    },
    { title = "Alarms, by kind", metrics = [[local.searches.Alarms]] },
    {
      title = "Pools"
      stat  = "Maximum"
      metrics = [
        for metric in ["PoolWaiting", "RunnersStarting", "RunnersIdle", "RunnersBusy", "PoolsFailing", "StuckInPools"] :
        ["EcsBridge", metric, "Deployment", var.deployment]
      ]
    },
    {
      title = "Runners asking for work"
      metrics = concat(
        [for pair in local.of_url : ["AWS/Lambda", pair[0], "FunctionName", local.functions.work, { label = pair[1] }]],
        [["EcsBridge", "RunnersRefused", "Deployment", var.deployment]],
      )
    },
    {
      title   = "work: milliseconds a run, p99"
      stat    = "p99"
      metrics = [["AWS/Lambda", "Duration", "FunctionName", local.functions.work, { label = "work" }]]
    },
  ]

  # Every value of a dimension, without naming them.
  searches = {
    for metric, by in { Terminal = "State", LaunchRefusals = "Reason", Alarms = "Kind" } :
    metric => { id = "s", expression = "SEARCH('{EcsBridge,Deployment,${by}} MetricName=\"${metric}\" Deployment=\"${var.deployment}\"', 'Sum', 60)" }
  }
  shown  = ["submit", "task-state", "reconcile", "work"]
  of_url = [["UrlRequestCount", "requests"], ["Url4xxCount", "4xx"], ["Url5xxCount", "5xx"]]
}

resource "aws_cloudwatch_dashboard" "dashboard" {
  dashboard_name = var.deployment

  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        x      = index % 3 * 8
        y      = floor(index / 3) * 6
        width  = 8
        height = 6
        properties = {
          title   = widget.title
          region  = local.region
          view    = "timeSeries"
          stat    = try(widget.stat, "Sum")
          period  = try(widget.period, 60)
          metrics = widget.metrics
        }
      }
    ]
  })
}

# --- Saved queries -------------------------------------------------------------------------------
# CloudWatch Logs Insights lists them under the deployment's name.

resource "aws_cloudwatch_query_definition" "submission" {
  name            = "${var.deployment}/one submission"
  log_group_names = [module.submit.log_group, module.task_state.log_group, module.reconcile.log_group]
  query_string    = <<-EOT
    fields @timestamp, level, fields.message, fields.attempt, fields.from, fields.to, fields.task, fields.exit_code, fields.reason
    | filter fields.submission_id = "ID"
    | sort @timestamp asc
  EOT
}

resource "aws_cloudwatch_query_definition" "refusals" {
  name            = "${var.deployment}/refused launches by reason"
  log_group_names = [module.submit.log_group, module.reconcile.log_group]
  query_string    = <<-EOT
    filter level = "WARN" and fields.message like /RunTask/
    | stats count(*) as refusals, count_distinct(fields.submission_id) as submissions by fields.message, fields.reason
    | sort refusals desc
  EOT
}

resource "aws_cloudwatch_query_definition" "errors" {
  name            = "${var.deployment}/errors"
  log_group_names = [module.submit.log_group, module.task_state.log_group, module.reconcile.log_group]
  query_string    = <<-EOT
    fields @timestamp, @log, fields.message, fields.submission_id, fields.reason
    | filter level = "ERROR"
    | sort @timestamp desc
  EOT
}
