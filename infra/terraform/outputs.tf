# The outputs of template.yaml, under the same names in snake case. Where it leaves one out, this one is null.

output "submit_url" {
  description = "Address of the API"
  # The URL of a function ends in a slash, which paths such as /v1/submissions bring themselves.
  value = var.function_url ? trimsuffix(aws_lambda_function_url.submit[0].function_url, "/") : null
}

output "submit_function_name" {
  description = "Function of the API, for callers that invoke it directly"
  value       = module.submit.function_name
}

output "work_url" {
  description = "URL that runners ask for work"
  value       = var.function_url ? aws_lambda_function_url.work[0].function_url : null
}

output "work_function_name" {
  description = "Function that gives runners work"
  value       = module.work.function_name
}

output "runner_policy_arn" {
  description = "Managed policy for the task roles of pools"
  value       = aws_iam_policy.runner.arn
}

output "table_name" {
  description = "The table that the executor reads"
  value       = local.table_name
}

output "region" {
  description = "Region of table and API"
  value       = local.region
}

output "deployment_name" {
  description = "Partition of the feed index that the executor reads"
  value       = var.deployment
}

output "executor_policy_arn" {
  description = "Policy to attach to the role of the Airflow scheduler"
  value       = aws_iam_policy.executor.arn
}

output "page_policy_arn" {
  description = "Policy to attach to the role of Airflow's API servers, for the page in the UI"
  value       = aws_iam_policy.page.arn
}

output "caller_role_arn" {
  description = "Role that the principals of caller_principal_arns assume"
  value       = length(var.caller_principal_arns) > 0 ? aws_iam_role.caller[0].arn : null
}

output "event_dead_letters_url" {
  description = "Queue of events that never reached the table"
  value       = aws_sqs_queue.event_dead_letters.url
}

output "reconcile_dead_letters_url" {
  description = "Queue of runs of reconcile that were dropped"
  value       = aws_sqs_queue.reconcile_dead_letters.url
}

output "task_state_function_name" {
  description = "Function that dead letters are redriven to"
  value       = module.task_state.function_name
}

output "reconcile_function_name" {
  description = "Function to invoke for a run of reconcile now"
  value       = module.reconcile.function_name
}

# In place of RollbackConfiguration, which is CloudFormation's: Terraform rolls nothing back.
output "rollback_alarm_arns" {
  description = "Alarms that tell of a bad deployment, for a pipeline that rolls back by them"
  value = [
    for name in concat(["submit-errors"], var.function_url ? ["submit-5xx"] : [], ["task-state-errors", "work-errors", "reconcile-stalled"]) :
    aws_cloudwatch_metric_alarm.alarm[name].arn
  ]
}
