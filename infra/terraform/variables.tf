# The parameters of template.yaml, under the same names in snake case and with the same defaults; null and [] stand for
# its empty ones. A test holds the two lists, and what each value may be, against each other.

# --- What is launched and where ------------------------------------------------------------------

variable "deployment" {
  description = "Name of this deployment, unique in account and region. It prefixes startedBy of every task and the names of the resources"
  type        = string
  default     = "ecs-bridge"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,32}$", var.deployment))
    error_message = "deployment must be 1 to 32 letters, digits, - and _."
  }
}

variable "cluster_arn" {
  description = "The ECS cluster that tasks are launched on"
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,255}$", var.cluster_arn))
    error_message = "cluster_arn must be the ARN of an ECS cluster."
  }
}

variable "more_cluster_arns" {
  description = "Further clusters of this account and region that profiles may name"
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for arn in var.more_cluster_arns : can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+$", arn))
    ]) && length(join(",", var.more_cluster_arns)) <= 1400
    error_message = "more_cluster_arns must be ARNs of ECS clusters, up to 1,400 characters in all: an event pattern has up to 2,048."
  }
}

variable "task_definition_arns" {
  description = "Task definitions that may be launched, as ARNs for IAM, e.g. arn:aws:ecs:eu-west-1:123456789012:task-definition/jobs:*"
  type        = list(string)
}

variable "pass_role_arns" {
  description = "Task roles and task execution roles of those task definitions, and of overrides"
  type        = list(string)
}

variable "infrastructure_role_arns" {
  description = "Roles by which ECS attaches managed EBS volumes (roleArn of volumeConfigurations)"
  type        = list(string)
  default     = []
}

variable "runner_role_arns" {
  description = "Task roles of the containers of pools, whose sessions alone get work; * stands for any characters. Empty for any role of this account"
  type        = list(string)
  default     = []
}

variable "profiles" {
  description = "Launch profiles as a JSON object of at most 3,000 characters: jsonencode({...}). Longer ones belong in a layer"
  type        = string
  default     = null

  validation {
    condition     = length(coalesce(var.profiles, "{}")) <= 3000
    error_message = "profiles may have 3,000 characters at most. Longer ones belong in a layer: profiles_layer_arn."
  }
}

variable "profiles_layer_arn" {
  description = "Version of a Lambda layer that holds the profiles as profiles.json, instead of profiles"
  type        = string
  default     = null

  validation {
    condition     = var.profiles_layer_arn == null || can(regex("^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[A-Za-z0-9_-]+:[0-9]+$", var.profiles_layer_arn))
    error_message = "profiles_layer_arn must be the ARN of a version of a Lambda layer."
  }
}

# --- Pace and retention ---------------------------------------------------------------------------

variable "launch_rate" {
  description = "RunTask calls per second of all functions together. The default quota of ECS is 20"
  type        = number
  default     = 20

  validation {
    condition     = var.launch_rate >= 1
    error_message = "launch_rate must be 1 or more."
  }
}

variable "launch_burst" {
  description = "RunTask calls at once before launch_rate applies"
  type        = number
  default     = 100

  validation {
    condition     = var.launch_burst >= 1
    error_message = "launch_burst must be 1 or more."
  }
}

variable "reconcile_minutes" {
  description = "Minutes between two runs of reconcile, if nothing wakes it"
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 2, 5], var.reconcile_minutes)
    error_message = "reconcile_minutes must be one of 1, 2, 5."
  }
}

variable "retention_days" {
  description = "Days for which a record, and with it the idempotency of its id, is kept after its submission has ended"
  type        = number
  default     = 30

  validation {
    condition     = var.retention_days >= 1 && var.retention_days <= 3650
    error_message = "retention_days must be from 1 to 3,650."
  }
}

variable "backup_days" {
  description = "Days of point-in-time recovery. Backups hold the commands of submissions that were in flight"
  type        = number
  default     = 7

  validation {
    condition     = var.backup_days >= 1 && var.backup_days <= 35
    error_message = "backup_days must be from 1 to 35."
  }
}

variable "restored_table" {
  description = "Name of a table that was restored from a backup, to be used in place of the module's own; null for its own"
  type        = string
  default     = null

  validation {
    condition     = var.restored_table == null || can(regex("^[A-Za-z0-9_.-]{3,255}$", var.restored_table))
    error_message = "restored_table must be the name of a DynamoDB table."
  }
}

variable "dead_letter_seconds" {
  description = "Retention of dead letters in seconds. They hold the commands of tasks"
  type        = number
  default     = 345600

  validation {
    condition     = var.dead_letter_seconds >= 3600 && var.dead_letter_seconds <= 1209600
    error_message = "dead_letter_seconds must be from 3,600 to 1,209,600."
  }
}

variable "log_retention_days" {
  description = "Retention of the functions' logs in days"
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "log_level" {
  description = "At least INFO, because metrics are log lines of that level"
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO"], var.log_level)
    error_message = "log_level must be one of DEBUG, INFO."
  }
}

# --- Functions ------------------------------------------------------------------------------------

variable "architecture" {
  description = "arm64 costs a fifth less"
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be one of x86_64, arm64."
  }
}

variable "submit_memory" {
  description = "Memory of submit in MB"
  type        = number
  default     = 256

  validation {
    condition     = var.submit_memory >= 128 && var.submit_memory <= 10240
    error_message = "submit_memory must be from 128 to 10,240."
  }
}

variable "task_state_memory" {
  description = "Memory of task-state in MB"
  type        = number
  default     = 128

  validation {
    condition     = var.task_state_memory >= 128 && var.task_state_memory <= 10240
    error_message = "task_state_memory must be from 128 to 10,240."
  }
}

variable "reconcile_memory" {
  description = "Memory of reconcile in MB"
  type        = number
  default     = 256

  validation {
    condition     = var.reconcile_memory >= 128 && var.reconcile_memory <= 10240
    error_message = "reconcile_memory must be from 128 to 10,240."
  }
}

variable "work_memory" {
  description = "Memory of work in MB"
  type        = number
  default     = 128

  validation {
    condition     = var.work_memory >= 128 && var.work_memory <= 10240
    error_message = "work_memory must be from 128 to 10,240."
  }
}

variable "submit_concurrency" {
  description = "Reserved concurrency; null for none"
  type        = number
  default     = null

  validation {
    condition     = var.submit_concurrency == null || can(regex("^[1-9][0-9]*$", tostring(var.submit_concurrency)))
    error_message = "submit_concurrency must be a whole number, 1 or more; null for none."
  }
}

variable "task_state_concurrency" {
  description = "Reserved concurrency; null for none"
  type        = number
  default     = null

  validation {
    condition     = var.task_state_concurrency == null || can(regex("^[1-9][0-9]*$", tostring(var.task_state_concurrency)))
    error_message = "task_state_concurrency must be a whole number, 1 or more; null for none."
  }
}

variable "reconcile_concurrency" {
  description = "Reserved concurrency; null for none. 2 keeps a burst of wake-ups from using the account's. An account with the initial quota of 10 can reserve none"
  type        = number
  default     = null

  validation {
    condition     = var.reconcile_concurrency == null || can(regex("^[1-9][0-9]*$", tostring(var.reconcile_concurrency)))
    error_message = "reconcile_concurrency must be a whole number, 1 or more; null for none."
  }
}

variable "work_concurrency" {
  description = "Reserved concurrency; null for none. Each runner asks once a second, for some milliseconds"
  type        = number
  default     = null

  validation {
    condition     = var.work_concurrency == null || can(regex("^[1-9][0-9]*$", tostring(var.work_concurrency)))
    error_message = "work_concurrency must be a whole number, 1 or more; null for none."
  }
}

variable "work_direct_invocation" {
  description = "Whether runners invoke work by Lambda's API instead of its URL. Then only their token tells who they are"
  type        = bool
  default     = false
}

variable "function_url" {
  description = "Whether submit and work have URLs. Without, callers and runners invoke the functions by Lambda's API"
  type        = bool
  default     = true
}

variable "task_tokens" {
  description = "Whether submissions may carry a task token of Step Functions, which is told of their end"
  type        = bool
  default     = false
}

variable "event_bus_arns" {
  description = "Event buses that may be told of the end of submissions"
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for arn in var.event_bus_arns : can(regex("^arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+$", arn))
    ])
    error_message = "event_bus_arns must be ARNs of event buses."
  }
}

# --- Network, keys, access, alarms ----------------------------------------------------------------

variable "subnet_ids" {
  description = "Subnets of the functions, with routes to DynamoDB, ECS and Lambda; empty for no VPC"
  type        = list(string)
  default     = []
}

variable "security_group_ids" {
  description = "Security groups of the functions; empty for no VPC"
  type        = list(string)
  default     = []
}

variable "kms_key_arn" {
  description = "Key for table, queues, logs and the functions' variables; null for AWS's own"
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key."
  }
}

variable "caller_principal_arns" {
  description = "Principals of other accounts (roles, or arn:aws:iam::ACCOUNT:root) that may assume a role with the executor's policy"
  type        = list(string)
  default     = []
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of all roles; null for none"
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to; null for none"
  type        = string
  default     = null
}

variable "repairs_alarm_percent" {
  description = "Share of state changes within 15 minutes that no event reported, in percent, above which an alarm is raised"
  type        = number
  default     = 20

  validation {
    condition     = var.repairs_alarm_percent >= 1 && var.repairs_alarm_percent <= 99
    error_message = "repairs_alarm_percent must be from 1 to 99."
  }
}

variable "queue_age_alarm_seconds" {
  description = "Age of the oldest queued submission, in seconds, above which an alarm is raised"
  type        = number
  default     = 900

  validation {
    condition     = var.queue_age_alarm_seconds >= 60
    error_message = "queue_age_alarm_seconds must be 60 or more."
  }
}

# --- The code of the functions, which SAM uploads where template.yaml is deployed -------------------

variable "code_bucket" {
  description = "Bucket in this region that holds the zips of a release: PREFIX/ARCHITECTURE/NAME.zip. Or code_directory"
  type        = string
  default     = null
}

variable "code_prefix" {
  description = "Prefix of the zips in code_bucket, with a slash at its end. Another one for each release"
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([A-Za-z0-9!_.*'()/-]*/)?$", var.code_prefix))
    error_message = "code_prefix must end with a slash."
  }
}

variable "code_directory" {
  description = "Folder that holds the zips of a release: ARCHITECTURE/NAME.zip, such as dist of `make release`. Or code_bucket"
  type        = string
  default     = null
}
