# Manages the bridge with Terraform or OpenTofu, as a CloudFormation stack from the template of a release.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

variable "stack_name" {
  description = "Name of the CloudFormation stack. Null for the name of the deployment, with - for each _"
  type        = string
  default     = null
}

variable "code_bucket" {
  description = "Bucket of this Region that contains the release. CloudFormation reads the template from it, and Lambda reads the zip files"
  type        = string
}

variable "code_prefix" {
  description = "Prefix of the release in code_bucket, with a final slash. Without code_directory, use a new prefix for each release"
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([A-Za-z0-9!_.*'()/-]*/)?$", var.code_prefix))
    error_message = "code_prefix must be empty or end with a slash."
  }
}

variable "code_directory" {
  description = "Folder with the files of a release, such as dist after `make release`. The module uploads them under code_prefix. Null if they are already in the bucket"
  type        = string
  default     = null
}

variable "cloudformation_role_arn" {
  description = "Service role of the stack. Null for the permissions of the principal that applies the module"
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the stack. CloudFormation adds them to its resources"
  type        = map(string)
  default     = {}
}

locals {
  files = var.code_directory == null ? [] : fileset(var.code_directory, "{packaged,packaged-no-urls}.yaml")
  zips  = var.code_directory == null ? [] : fileset(var.code_directory, "{x86_64,arm64}/*.zip")
  # Lambda reads new code, and CloudFormation a new template, only under a new name. The old files stay until the stack
  # is updated, because a rollback needs them.
  release = { for name in setunion(local.files, local.zips) : name => filesha256("${var.code_directory}/${name}") }
  content = length(local.release) == 0 ? "" : "${substr(sha256(jsonencode(local.release)), 0, 16)}/"
  prefix  = "${var.code_prefix}${local.content}"
  # Some Regions do not support function URLs, and their CloudFormation does not support the type.
  template = coalesce(var.function_url, true) ? "packaged.yaml" : "packaged-no-urls.yaml"
}

data "aws_s3_bucket" "code" {
  bucket = var.code_bucket
}

resource "aws_s3_object" "release" {
  for_each = local.release

  bucket = var.code_bucket
  key    = "${local.prefix}${each.key}"
  source = "${var.code_directory}/${each.key}"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudformation_stack" "bridge" {
  #checkov:skip=CKV_AWS_124:Terraform shows the stack's events to the caller
  # A deployment name may contain _, and a stack name must not.
  name         = coalesce(var.stack_name, replace(coalesce(var.deployment, "ecs-bridge"), "_", "-"))
  template_url = "https://${data.aws_s3_bucket.code.bucket_regional_domain_name}/${local.prefix}${local.template}"
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
  iam_role_arn = var.cloudformation_role_arn
  tags         = var.tags

  parameters = merge(
    { for name, value in local.parameters : name => value if value != null },
    { CodeBucket = var.code_bucket, CodePrefix = local.prefix },
  )

  depends_on = [aws_s3_object.release]

  lifecycle {
    precondition {
      condition     = (var.profiles == null) != (var.profiles_layer_arn == null)
      error_message = "Set exactly one of profiles and profiles_layer_arn."
    }

    precondition {
      condition     = var.code_directory == null || (length(local.files) == 2 && length(local.zips) > 0)
      error_message = "code_directory must contain a release. Run `make release`, which writes packaged.yaml, packaged-no-urls.yaml and ARCHITECTURE/NAME.zip to dist."
    }
  }
}

# Terraform does not roll back. A pipeline can use this output.
output "rollback_alarm_arns" {
  description = "Alarms that indicate a bad deployment, for a pipeline that rolls back on them"
  value       = [for trigger in jsondecode(aws_cloudformation_stack.bridge.outputs["RollbackConfiguration"]).RollbackTriggers : trigger.Arn]
}
