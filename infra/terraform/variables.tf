# Written by tools/terraform_interface.py from template.yaml.

variable "deployment" {
  description = "Name of this deployment, unique in the account and Region. It is the prefix of the startedBy of every task and of the function names"
  type        = string
  default     = null

  validation {
    condition     = var.deployment == null ? true : can(regex("^[A-Za-z0-9_-]{1,32}$", var.deployment))
    error_message = "deployment must be text that matches [A-Za-z0-9_-]{1,32}."
  }
}

variable "cluster_arn" {
  description = "ECS cluster that tasks are launched on"
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,255}$", var.cluster_arn))
    error_message = "cluster_arn must be text that matches arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,255}."
  }
}

variable "more_cluster_arns" {
  description = "Additional clusters of this account and Region that profiles may name. Up to 1,400 characters, about 25 clusters"
  type        = list(string)
  default     = null

  validation {
    condition     = var.more_cluster_arns == null ? true : length(join(",", var.more_cluster_arns)) <= 1400
    error_message = "more_cluster_arns must be up to 1400 characters long."
  }

  validation {
    condition     = var.more_cluster_arns == null ? true : can(regex("^(arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+(,arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+)*)?$", join(",", var.more_cluster_arns)))
    error_message = "more_cluster_arns must be text that, joined by commas, matches (arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+(,arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+)*)?."
  }
}

variable "task_definition_arns" {
  description = "Task definitions that may be launched, as ARNs for IAM, for example arn:aws:ecs:eu-west-1:123456789012:task-definition/jobs:*"
  type        = list(string)
}

variable "pass_role_arns" {
  description = "Task roles and task execution roles of those task definitions and of overrides"
  type        = list(string)
}

variable "infrastructure_role_arns" {
  description = "Roles that ECS uses to attach managed EBS volumes (roleArn of volumeConfigurations). Empty for none"
  type        = list(string)
  default     = null
}

variable "runner_role_arns" {
  description = "Task roles that pool containers may have. Only sessions of these roles receive commands. * matches any characters. Empty allows any role of this account"
  type        = list(string)
  default     = null
}

variable "profiles" {
  description = "Launch profiles, as a JSON object of up to 3,000 characters. Use profiles_layer_arn for a longer object"
  type        = string
  default     = null

  validation {
    condition     = var.profiles == null ? true : length(var.profiles) <= 3000
    error_message = "profiles must be up to 3000 characters long."
  }
}

variable "profiles_layer_arn" {
  description = "Version of a Lambda layer that contains the profiles as profiles.json. Use it instead of profiles"
  type        = string
  default     = null

  validation {
    condition     = var.profiles_layer_arn == null ? true : can(regex("^(arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[A-Za-z0-9_-]+:[0-9]+)?$", var.profiles_layer_arn))
    error_message = "profiles_layer_arn must be text that matches (arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[A-Za-z0-9_-]+:[0-9]+)?."
  }
}

variable "launch_rate" {
  description = "RunTask calls per second, across all functions. The default ECS quota is 20"
  type        = number
  default     = null

  validation {
    condition     = var.launch_rate == null ? true : var.launch_rate >= 1
    error_message = "launch_rate must be at least 1."
  }
}

variable "launch_burst" {
  description = "Burst size of RunTask calls"
  type        = number
  default     = null

  validation {
    condition     = var.launch_burst == null ? true : var.launch_burst >= 1
    error_message = "launch_burst must be at least 1."
  }
}

variable "reconcile_minutes" {
  description = "Minutes between scheduled runs of reconcile. Functions also invoke reconcile when there is work"
  type        = number
  default     = null

  validation {
    condition     = var.reconcile_minutes == null ? true : contains([1, 2, 5], var.reconcile_minutes)
    error_message = "reconcile_minutes must be one of 1, 2, 5."
  }
}

variable "retention_days" {
  description = "Days that a record is kept after its submission has ended. The submission ID is idempotent for the same time"
  type        = number
  default     = null

  validation {
    condition     = var.retention_days == null ? true : var.retention_days >= 1
    error_message = "retention_days must be at least 1."
  }

  validation {
    condition     = var.retention_days == null ? true : var.retention_days <= 3650
    error_message = "retention_days must be 3650 or less."
  }
}

variable "backup_days" {
  description = "Days of point-in-time recovery. Backups contain the commands of submissions that were in flight"
  type        = number
  default     = null

  validation {
    condition     = var.backup_days == null ? true : var.backup_days >= 1
    error_message = "backup_days must be at least 1."
  }

  validation {
    condition     = var.backup_days == null ? true : var.backup_days <= 35
    error_message = "backup_days must be 35 or less."
  }
}

variable "dead_letter_seconds" {
  description = "Retention of dead-letter messages, in seconds. The messages contain the commands of tasks"
  type        = number
  default     = null

  validation {
    condition     = var.dead_letter_seconds == null ? true : var.dead_letter_seconds >= 3600
    error_message = "dead_letter_seconds must be at least 3600."
  }

  validation {
    condition     = var.dead_letter_seconds == null ? true : var.dead_letter_seconds <= 1209600
    error_message = "dead_letter_seconds must be 1209600 or less."
  }
}

variable "log_retention_days" {
  description = "Retention of the function logs, in days"
  type        = number
  default     = null

  validation {
    condition     = var.log_retention_days == null ? true : contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "log_level" {
  description = "Log level of the functions. It must include INFO, because metrics are INFO log lines"
  type        = string
  default     = null

  validation {
    condition     = var.log_level == null ? true : contains(["DEBUG", "INFO"], var.log_level)
    error_message = "log_level must be one of DEBUG, INFO."
  }
}

variable "architecture" {
  description = "CPU architecture of the functions. arm64 costs 20% less, and the build needs the Rust target aarch64-unknown-linux-gnu"
  type        = string
  default     = null

  validation {
    condition     = var.architecture == null ? true : contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be one of x86_64, arm64."
  }
}

variable "submit_memory" {
  description = "Memory of submit, in MB"
  type        = number
  default     = null

  validation {
    condition     = var.submit_memory == null ? true : var.submit_memory >= 128
    error_message = "submit_memory must be at least 128."
  }

  validation {
    condition     = var.submit_memory == null ? true : var.submit_memory <= 10240
    error_message = "submit_memory must be 10240 or less."
  }
}

variable "task_state_memory" {
  description = "Memory of task-state, in MB"
  type        = number
  default     = null

  validation {
    condition     = var.task_state_memory == null ? true : var.task_state_memory >= 128
    error_message = "task_state_memory must be at least 128."
  }

  validation {
    condition     = var.task_state_memory == null ? true : var.task_state_memory <= 10240
    error_message = "task_state_memory must be 10240 or less."
  }
}

variable "reconcile_memory" {
  description = "Memory of reconcile, in MB"
  type        = number
  default     = null

  validation {
    condition     = var.reconcile_memory == null ? true : var.reconcile_memory >= 128
    error_message = "reconcile_memory must be at least 128."
  }

  validation {
    condition     = var.reconcile_memory == null ? true : var.reconcile_memory <= 10240
    error_message = "reconcile_memory must be 10240 or less."
  }
}

variable "runner_api_memory" {
  description = "Memory of runner-api, in MB"
  type        = number
  default     = null

  validation {
    condition     = var.runner_api_memory == null ? true : var.runner_api_memory >= 128
    error_message = "runner_api_memory must be at least 128."
  }

  validation {
    condition     = var.runner_api_memory == null ? true : var.runner_api_memory <= 10240
    error_message = "runner_api_memory must be 10240 or less."
  }
}

variable "submit_concurrency" {
  description = "Reserved concurrency of submit. Empty for none"
  type        = number
  default     = null

  validation {
    condition     = var.submit_concurrency == null ? true : can(regex("^([1-9][0-9]*)?$", var.submit_concurrency))
    error_message = "submit_concurrency must be text that matches ([1-9][0-9]*)?."
  }
}

variable "task_state_concurrency" {
  description = "Reserved concurrency of task-state. Empty for none"
  type        = number
  default     = null

  validation {
    condition     = var.task_state_concurrency == null ? true : can(regex("^([1-9][0-9]*)?$", var.task_state_concurrency))
    error_message = "task_state_concurrency must be text that matches ([1-9][0-9]*)?."
  }
}

variable "reconcile_concurrency" {
  description = "Reserved concurrency of reconcile. Empty for none. With 2, a burst of invocations cannot use the account's concurrency. An account with the initial quota of 10 cannot reserve any"
  type        = number
  default     = null

  validation {
    condition     = var.reconcile_concurrency == null ? true : can(regex("^([1-9][0-9]*)?$", var.reconcile_concurrency))
    error_message = "reconcile_concurrency must be text that matches ([1-9][0-9]*)?."
  }
}

variable "runner_api_concurrency" {
  description = "Reserved concurrency of runner-api. Empty for none. Each runner polls once per second, and a poll takes a few milliseconds"
  type        = number
  default     = null

  validation {
    condition     = var.runner_api_concurrency == null ? true : can(regex("^([1-9][0-9]*)?$", var.runner_api_concurrency))
    error_message = "runner_api_concurrency must be text that matches ([1-9][0-9]*)?."
  }
}

variable "runner_api_direct_invocation" {
  description = "Allow runners to invoke runner-api through the Lambda API instead of its URL. Runners are then authenticated by their token alone"
  type        = bool
  default     = null
}

variable "function_url" {
  description = "Create function URLs for submit and runner-api. Without URLs, callers and runners invoke the functions through the Lambda API"
  type        = bool
  default     = null
}

variable "task_tokens" {
  description = "Allow submissions to include a Step Functions task token that receives their result"
  type        = bool
  default     = null
}

variable "event_bus_arns" {
  description = "Event buses that may receive completion events"
  type        = list(string)
  default     = null

  validation {
    condition     = var.event_bus_arns == null ? true : can(regex("^(arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+(,arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+)*)?$", join(",", var.event_bus_arns)))
    error_message = "event_bus_arns must be text that, joined by commas, matches (arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+(,arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+)*)?."
  }
}

variable "subnet_ids" {
  description = "Subnets of the functions, with routes to DynamoDB, ECS and Lambda. Empty for no VPC"
  type        = list(string)
  default     = null
}

variable "security_group_ids" {
  description = "Security groups of the functions. Empty for no VPC"
  type        = list(string)
  default     = null
}

variable "kms_key_arn" {
  description = "KMS key for the table, queues, logs and function variables. Empty for AWS owned keys. infra/key.yaml creates a key"
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$", var.kms_key_arn))
    error_message = "kms_key_arn must be text that matches (arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?."
  }
}

variable "caller_principal_arns" {
  description = "Principals of other accounts that may assume a role with the executor's policy (roles, or arn:aws:iam::ACCOUNT:root). Empty for none"
  type        = list(string)
  default     = null
}

variable "restored_table" {
  description = "Name of a table that was restored from a backup. The functions use it in place of the stack's own table. Empty for the stack's own table"
  type        = string
  default     = null

  validation {
    condition     = var.restored_table == null ? true : can(regex("^([A-Za-z0-9_.-]{3,255})?$", var.restored_table))
    error_message = "restored_table must be text that matches ([A-Za-z0-9_.-]{3,255})?."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of all roles. Empty for none"
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "SNS topic that receives alarms. Empty for none"
  type        = string
  default     = null
}

variable "missed_events_alarm_percent" {
  description = "Threshold of the missed-events alarm, in percent. The alarm measures the share of state changes within 15 minutes that no event reported"
  type        = number
  default     = null

  validation {
    condition     = var.missed_events_alarm_percent == null ? true : var.missed_events_alarm_percent >= 1
    error_message = "missed_events_alarm_percent must be at least 1."
  }

  validation {
    condition     = var.missed_events_alarm_percent == null ? true : var.missed_events_alarm_percent <= 99
    error_message = "missed_events_alarm_percent must be 99 or less."
  }
}

variable "queue_age_alarm_seconds" {
  description = "Threshold of the queue-age alarm, in seconds. The alarm measures the age of the oldest queued submission"
  type        = number
  default     = null

  validation {
    condition     = var.queue_age_alarm_seconds == null ? true : var.queue_age_alarm_seconds >= 60
    error_message = "queue_age_alarm_seconds must be at least 60."
  }
}

locals {
  parameters = {
    Deployment                = var.deployment
    ClusterArn                = var.cluster_arn
    MoreClusterArns           = var.more_cluster_arns == null ? null : join(",", var.more_cluster_arns)
    TaskDefinitionArns        = var.task_definition_arns == null ? null : join(",", var.task_definition_arns)
    PassRoleArns              = var.pass_role_arns == null ? null : join(",", var.pass_role_arns)
    InfrastructureRoleArns    = var.infrastructure_role_arns == null ? null : join(",", var.infrastructure_role_arns)
    RunnerRoleArns            = var.runner_role_arns == null ? null : join(",", var.runner_role_arns)
    Profiles                  = var.profiles
    ProfilesLayerArn          = var.profiles_layer_arn
    LaunchRate                = tostring(var.launch_rate)
    LaunchBurst               = tostring(var.launch_burst)
    ReconcileMinutes          = tostring(var.reconcile_minutes)
    RetentionDays             = tostring(var.retention_days)
    BackupDays                = tostring(var.backup_days)
    DeadLetterSeconds         = tostring(var.dead_letter_seconds)
    LogRetentionDays          = tostring(var.log_retention_days)
    LogLevel                  = var.log_level
    Architecture              = var.architecture
    SubmitMemory              = tostring(var.submit_memory)
    TaskStateMemory           = tostring(var.task_state_memory)
    ReconcileMemory           = tostring(var.reconcile_memory)
    RunnerApiMemory           = tostring(var.runner_api_memory)
    SubmitConcurrency         = tostring(var.submit_concurrency)
    TaskStateConcurrency      = tostring(var.task_state_concurrency)
    ReconcileConcurrency      = tostring(var.reconcile_concurrency)
    RunnerApiConcurrency      = tostring(var.runner_api_concurrency)
    RunnerApiDirectInvocation = tostring(var.runner_api_direct_invocation)
    FunctionUrl               = tostring(var.function_url)
    TaskTokens                = tostring(var.task_tokens)
    EventBusArns              = var.event_bus_arns == null ? null : join(",", var.event_bus_arns)
    SubnetIds                 = var.subnet_ids == null ? null : join(",", var.subnet_ids)
    SecurityGroupIds          = var.security_group_ids == null ? null : join(",", var.security_group_ids)
    KmsKeyArn                 = var.kms_key_arn
    CallerPrincipalArns       = var.caller_principal_arns == null ? null : join(",", var.caller_principal_arns)
    RestoredTable             = var.restored_table
    PermissionsBoundaryArn    = var.permissions_boundary_arn
    AlarmTopicArn             = var.alarm_topic_arn
    MissedEventsAlarmPercent  = tostring(var.missed_events_alarm_percent)
    QueueAgeAlarmSeconds      = tostring(var.queue_age_alarm_seconds)
  }
}
