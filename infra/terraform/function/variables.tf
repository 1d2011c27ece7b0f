variable "shared" {
  description = "What all functions of a deployment have in common"
  type = object({
    deployment               = string
    role_prefix              = string
    architecture             = string
    code_bucket              = string
    code_prefix              = string
    code_directory           = string
    subnet_ids               = list(string)
    security_group_ids       = list(string)
    kms_key_arn              = string
    permissions_boundary_arn = string
    log_level                = string
    log_retention_days       = number
    tags                     = map(string)
    variables                = map(string)
  })
}

variable "name" {
  description = "Name of the function within the deployment, and of its zip"
  type        = string
}

variable "description" {
  description = "What the function does"
  type        = string
}

variable "memory" {
  description = "Memory in MB"
  type        = number
}

variable "timeout" {
  description = "Seconds that an invocation may take"
  type        = number
}

variable "concurrency" {
  description = "Reserved concurrency; null for none"
  type        = number
}

variable "layers" {
  description = "ARNs of layer versions"
  type        = list(string)
  default     = []
}

variable "variables" {
  description = "Environment variables beside those of all functions; null ones are left out"
  type        = map(string)
}

variable "statements" {
  description = "What the role allows beside log, dead letters, key and VPC"
  type        = any
}

variable "policies" {
  description = "ARNs of managed policies of the role, by any name"
  type        = map(string)
  default     = {}
}

variable "asynchronous" {
  description = "How Lambda retries events, for seconds and times at most, and the queue of those that failed; null for a function that is invoked synchronously"
  type        = object({ max_age = number, max_retries = number, dead_letters_arn = string })
  default     = null
}
