//! The addresses and names of a running stack.

use std::path::PathBuf;

use serde::Serialize;

/// Addresses and names of a running stack: the contents of the ready file.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// `<submit_url>/v1/submissions` is the API; none where the functions have no URLs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_url: Option<String>,
    /// The name of submit, for direct invocation.
    pub submit_function: &'static str,
    /// The endpoint of Lambda.
    pub lambda_url: String,
    /// DynamoDB's endpoint.
    pub dynamodb_url: String,
    /// ECS's endpoint.
    pub ecs_url: String,
    /// The URL of runner-api; none where the functions have no URLs.
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
    /// The process of the stack.
    pub pid: u32,
    /// Where the output of functions and containers is, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_dir: Option<PathBuf>,
}
