//! The doorbells of pools: one SQS queue per pool key, which announces new submissions to idle runners.
//!
//! A message is a hint and is never deleted. A received message stays invisible until it expires.

use std::{fmt, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};
use ecs_bridge_core::{Deployment, pool::PoolKey};

/// A message without a submission id. The runner that receives it only polls.
pub const ASK: &str = "-";

/// The retention period of a message, in seconds, which is SQS's minimum.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html>
const KEPT: &str = "60";

/// The visibility timeout, in seconds. It exceeds the retention period.
const INVISIBLE: &str = "90";

/// SQS's limit on the messages of one call.
const BATCH: usize = 10;

/// The timeout of a call. A caller waits for it, and runners also poll without doorbells.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The cause of a failed creation or removal: SQS's error code, or a missing response.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed: {code}")]
pub struct DoorbellError {
    operation: &'static str,
    code: String,
}

/// The doorbells of a deployment.
#[derive(Clone, Debug)]
pub struct Doorbells {
    client: Client,
    deployment: Deployment,
}

impl Doorbells {
    /// Creates the doorbells with the configuration of the functions' other clients.
    pub fn new(config: &SdkConfig, deployment: &Deployment) -> Self {
        Self { client: Client::new(config), deployment: deployment.clone() }
    }

    /// Creates the doorbell of a pool key if it does not exist, and returns its URL.
    ///
    /// # Errors
    /// If SQS is unavailable or rejects the call, as it does for one minute after a queue with this name was deleted.
    pub async fn create(&self, key: &PoolKey) -> Result<String, DoorbellError> {
        let call = self
            .client
            .create_queue()
            .queue_name(key.doorbell_name(&self.deployment))
            .attributes(QueueAttributeName::MessageRetentionPeriod, KEPT)
            .attributes(QueueAttributeName::VisibilityTimeout, INVISIBLE);
        let answer = within("CreateQueue", call.send()).await?;
        answer.queue_url.ok_or(DoorbellError { operation: "CreateQueue", code: "no URL".to_owned() })
    }

    /// Removes a doorbell.
    ///
    /// # Errors
    /// If SQS is unavailable or rejects the call.
    pub async fn remove(&self, url: &str) -> Result<(), DoorbellError> {
        within("DeleteQueue", self.client.delete_queue().queue_url(url).send()).await.map(drop)
    }

    /// Sends messages, which are submission ids or [`ASK`]. Gives up after one second.
    pub async fn ring<M: fmt::Display>(&self, url: &str, messages: &[M]) {
        for batch in messages.chunks(BATCH) {
            let mut call = self.client.send_message_batch().queue_url(url);
            for (nth, message) in batch.iter().enumerate() {
                let entry =
                    SendMessageBatchRequestEntry::builder().id(nth.to_string()).message_body(message.to_string());
                // Both required members are set.
                let Ok(entry) = entry.build() else { continue };
                call = call.entries(entry);
            }
            if let Err(error) = within("SendMessageBatch", call.send()).await {
                // Idle runners also poll without a message.
                return tracing::warn!(%error, queue = url, "failed to announce submissions to idle runners");
            }
        }
    }
}

async fn within<T, E: ProvideErrorMetadata, R>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> Result<T, DoorbellError> {
    let failed = |code: &str| DoorbellError { operation, code: code.to_owned() };
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| failed(error.code().unwrap_or("no answer"))),
        Err(_) => Err(failed("no answer")),
    }
}
