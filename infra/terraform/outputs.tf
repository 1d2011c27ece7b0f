# Written by infra/terraform_interface.py from template.yaml.

output "submit_url" {
  description = "Address of the API"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "SubmitUrl", null)
}

output "submit_function_name" {
  description = "Function of the API, for callers that invoke it directly"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "SubmitFunctionName", null)
}

output "runner_api_url" {
  description = "URL that runners ask for work"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerApiUrl", null)
}

output "runner_api_function_name" {
  description = "Function that dispatches commands to runners"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerApiFunctionName", null)
}

output "runner_policy_arn" {
  description = "Managed policy for the task roles of pools"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerPolicyArn", null)
}

output "table_name" {
  description = "The table that the executor reads"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "TableName", null)
}

output "region" {
  description = "Region of table and API"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "Region", null)
}

output "deployment_name" {
  description = "Partition of the feed index that the executor reads"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "DeploymentName", null)
}

output "executor_policy_arn" {
  description = "Policy to attach to the role of the Airflow scheduler"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "ExecutorPolicyArn", null)
}

output "airflow_ui_policy_arn" {
  description = "Policy to attach to the role of Airflow's API servers, for the page in the UI"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "AirflowUiPolicyArn", null)
}

output "caller_role_arn" {
  description = "Role that the principals of caller_principal_arns assume"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "CallerRoleArn", null)
}

output "event_dead_letters_url" {
  description = "Queue of events that never reached the table"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "EventDeadLettersUrl", null)
}

output "reconcile_dead_letters_url" {
  description = "Queue of runs of reconcile that were dropped"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "ReconcileDeadLettersUrl", null)
}

output "task_state_function_name" {
  description = "Function that dead letters are redriven to"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "TaskStateFunctionName", null)
}

output "reconcile_function_name" {
  description = "Function to invoke for a run of reconcile now"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "ReconcileFunctionName", null)
}
