//! The addresses and names of a running stack.

use std::path::PathBuf;

use serde::Serialize;

/// Addresses and names of a running stack: the contents of the ready file.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// `<submit_url>/v1/submissions` is the API. Absent if the functions have no URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_url: Option<String>,
    /// The function name of submit, for direct invocation.
    pub submit_function: &'static str,
    /// The endpoint of Lambda.
    pub lambda_url: String,
    /// DynamoDB's endpoint.
    pub dynamodb_url: String,
    /// ECS's endpoint.
    pub ecs_url: String,
    /// The URL of runner-api. Absent if the functions have no URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_api_url: Option<String>,
    /// The table's name.
    pub table: String,
    /// The cluster's ARN.
    pub cluster: String,
    /// The region.
    pub region: String,
    /// The deployment's name.
    pub deployment: String,
    /// The process ID of the stack.
    pub pid: u32,
    /// The directory of the output of functions and containers, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
}
