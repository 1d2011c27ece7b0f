//! The doorbells of pools: an SQS queue for each pool key, which announces new submissions to idle runners.
//!
//! A message is a hint, and is never deleted: a received one stays invisible for longer than it is kept.

use std::{fmt, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{QueueAttributeName, SendMessageBatchRequestEntry},
};
use ecs_bridge_core::{Deployment, pool::PoolKey};

/// The message that announces no submission: the runner that receives it is only to ask for work.
pub const ASK: &str = "-";

/// How long a message is kept, in seconds: SQS's least.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html>
const KEPT: &str = "60";

/// How long a received message is invisible, in seconds: longer than it is kept.
const INVISIBLE: &str = "90";

/// SQS's limit on the messages of one call.
const BATCH: usize = 10;

/// How long one call may take. A caller waits for it, and runners ask without it too.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why a doorbell was not created or removed: SQS's error code, or that there was no answer.
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
    /// With the configuration of the functions' other clients.
    pub fn new(config: &SdkConfig, deployment: &Deployment) -> Self {
        Self { client: Client::new(config), deployment: deployment.clone() }
    }

    /// Creates the doorbell of a pool key, if it does not exist, and returns its URL.
    ///
    /// # Errors
    /// If SQS refuses, as it does for a minute after a queue of this name was deleted; if it does not answer.
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
    /// If SQS refuses, or does not answer.
    pub async fn remove(&self, url: &str) -> Result<(), DoorbellError> {
        within("DeleteQueue", self.client.delete_queue().queue_url(url).send()).await.map(drop)
    }

    /// Sends messages, which are ids of submissions or [`ASK`]; within a second or not at all.
    pub async fn ring<M: fmt::Display>(&self, url: &str, messages: &[M]) {
        for batch in messages.chunks(BATCH) {
            let mut call = self.client.send_message_batch().queue_url(url);
            for (nth, message) in batch.iter().enumerate() {
                let entry =
                    SendMessageBatchRequestEntry::builder().id(nth.to_string()).message_body(message.to_string());
                // Both members that it must have are set.
                let Ok(entry) = entry.build() else { continue };
                call = call.entries(entry);
            }
            if let Err(error) = within("SendMessageBatch", call.send()).await {
                // Idle runners ask by themselves.
                return tracing::warn!(%error, queue = url, "idle runners could not be notified of submissions");
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
