# Written by tools/terraform_interface.py from template.yaml.

output "submit_url" {
  description = "URL of the HTTP API"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "SubmitUrl", null)
}

output "submit_function_name" {
  description = "Name of the submit function, for callers that invoke it directly"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "SubmitFunctionName", null)
}

output "runner_api_url" {
  description = "URL that runners poll for commands"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerApiUrl", null)
}

output "runner_api_function_name" {
  description = "Name of the function that dispatches commands to runners"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerApiFunctionName", null)
}

output "runner_policy_arn" {
  description = "Managed policy for the task roles of pools"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "RunnerPolicyArn", null)
}

output "table_name" {
  description = "Name of the table that the executor reads"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "TableName", null)
}

output "region" {
  description = "Region of the table and the API"
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
  description = "Policy to attach to the role of the Airflow API servers, for the Airflow UI plugin"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "AirflowUiPolicyArn", null)
}

output "caller_role_arn" {
  description = "Role that the principals of caller_principal_arns can assume"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "CallerRoleArn", null)
}

output "event_dead_letters_url" {
  description = "URL of the dead-letter queue of events that never reached the table"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "EventDeadLettersUrl", null)
}

output "reconcile_dead_letters_url" {
  description = "URL of the dead-letter queue of dropped reconcile runs"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "ReconcileDeadLettersUrl", null)
}

output "task_state_function_name" {
  description = "Name of the function that dead-letter messages are redriven to"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "TaskStateFunctionName", null)
}

output "reconcile_function_name" {
  description = "Name of the function to invoke for an immediate run of reconcile"
  value       = lookup(aws_cloudformation_stack.bridge.outputs, "ReconcileFunctionName", null)
}
