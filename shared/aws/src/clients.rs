//! The SDK's clients, built once, as the functions start.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

/// DynamoDB answers in milliseconds; a connection that froze with its Lambda must not cost more than this.
const TABLE_ATTEMPT: Duration = Duration::from_secs(3);

/// RunTask answers within a few seconds, or not at all.
const ECS_ATTEMPT: Duration = Duration::from_secs(15);

const CONNECT: Duration = Duration::from_secs(2);

/// The clients of a function.
#[derive(Clone, Debug)]
pub struct Clients {
    /// What they were built from.
    pub config: SdkConfig,
    /// DynamoDB, with the SDK's retries.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// ECS, with the SDK's retries; RunTask is called without them.
    pub ecs: aws_sdk_ecs::Client,
}

impl Clients {
    /// Clients by the SDK's usual environment: region, credentials, `AWS_ENDPOINT_URL_…`.
    pub async fn from_environment() -> Self {
        let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50));
        Self::new(&aws_config::defaults(BehaviorVersion::latest()).retry_config(retries).load().await)
    }

    /// Clients with this configuration, but for their timeouts.
    pub fn new(config: &SdkConfig) -> Self {
        let timeouts =
            |attempt| TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(attempt).build();
        Self {
            config: config.clone(),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(config).timeout_config(timeouts(TABLE_ATTEMPT)).build(),
            ),
            ecs: aws_sdk_ecs::Client::from_conf(
                aws_sdk_ecs::config::Builder::from(config).timeout_config(timeouts(ECS_ATTEMPT)).build(),
            ),
        }
    }
}
