//! SQS, with the operations that the functions use: standard queues without deletion of messages. They share the address
//! and the rules of ECS.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{ApiError, parse};
use crate::clock::Millis;
use crate::faults::Faults;
use crate::http::lock;
use crate::rng::Chance;

/// The prefix of its operation names.
pub(super) const TARGET: &str = "AmazonSQS.";

/// The default retention period of a message (SQS: four days).
const KEPT: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// The shares of messages that are lost, and that are delivered twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageFaults {
    /// The share that is lost.
    pub lost: f64,
    /// The share that is delivered twice.
    pub doubled: f64,
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: Mutex<BTreeMap<String, Queue>>,
    /// Notified when a message arrives in any queue.
    arrived: Notify,
}

#[derive(Debug)]
struct Queue {
    kept: Duration,
    sent: u64,
    messages: VecDeque<Message>,
}

#[derive(Clone, Debug)]
struct Message {
    id: String,
    body: String,
    sent_at: u64,
    expires: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    queue_name: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfQueue {
    queue_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Send {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    message_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    #[serde(default)]
    wait_time_seconds: u64,
}

impl Queues {
    /// Performs an operation. `url` is the prefix of the URLs of queues.
    pub(super) async fn answer(
        &self,
        operation: &str,
        body: &Value,
        url: &str,
        (faults, chance, counts): (MessageFaults, Chance, &Faults),
    ) -> Result<Value, ApiError> {
        match operation {
            "CreateQueue" => {
                let Create { queue_name, attributes } = parse(body)?;
                let kept = attributes.get("MessageRetentionPeriod").and_then(|seconds| seconds.parse().ok());
                let url = format!("{url}/{queue_name}");
                let queue =
                    || Queue { kept: kept.map_or(KEPT, Duration::from_secs), sent: 0, messages: VecDeque::new() };
                lock(&self.queues).entry(url.clone()).or_insert_with(queue);
                Ok(json!({"QueueUrl": url}))
            }
            "DeleteQueue" => {
                let OfQueue { queue_url } = parse(body)?;
                lock(&self.queues).remove(&queue_url).map(|_| json!({})).ok_or_else(no_queue)
            }
            "SendMessageBatch" => {
                let (OfQueue { queue_url }, Send { entries }) = (parse(body)?, parse(body)?);
                let mut queues = lock(&self.queues);
                let queue = queues.get_mut(&queue_url).ok_or_else(no_queue)?;
                let mut sent = Vec::new();
                for Entry { id, message_body } in entries {
                    queue.sent += 1;
                    let identity = format!("{queue_url} {}", queue.sent);
                    let message = Message {
                        id: chance.uuid("message", &identity),
                        body: message_body,
                        sent_at: Millis::now().0,
                        expires: Instant::now() + queue.kept,
                    };
                    sent.push(json!({"Id": id, "MessageId": message.id}));
                    if chance.happens(faults.lost, "lost message", &identity) {
                        counts.messages_lost.count();
                        continue;
                    }
                    if chance.happens(faults.doubled, "doubled message", &identity) {
                        counts.messages_doubled.count();
                        queue.messages.push_back(message.clone());
                    }
                    queue.messages.push_back(message);
                }
                self.arrived.notify_waiters();
                Ok(json!({"Successful": sent, "Failed": []}))
            }
            "ReceiveMessage" => {
                let (OfQueue { queue_url }, Receive { wait_time_seconds }) = (parse(body)?, parse(body)?);
                let until = Instant::now() + Duration::from_secs(wait_time_seconds);
                loop {
                    let arrived = self.arrived.notified();
                    if let Some(Message { id, body, sent_at, .. }) = self.take(&queue_url)? {
                        let attributes = json!({"SentTimestamp": sent_at.to_string()});
                        let message =
                            json!({"MessageId": id, "ReceiptHandle": id, "Body": body, "Attributes": attributes});
                        return Ok(json!({"Messages": [message]}));
                    }
                    if tokio::time::timeout_at(until, arrived).await.is_err() {
                        return Ok(json!({}));
                    }
                }
            }
            _ => {
                let message = format!("the local stack does not support the operation \"{operation}\"");
                Err(ApiError::new("UnknownOperationException", message))
            }
        }
    }

    fn take(&self, queue_url: &str) -> Result<Option<Message>, ApiError> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(queue_url).ok_or_else(no_queue)?;
        while let Some(message) = queue.messages.pop_front() {
            if message.expires > Instant::now() {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

fn no_queue() -> ApiError {
    ApiError::new("QueueDoesNotExist", "The specified queue does not exist.")
}
