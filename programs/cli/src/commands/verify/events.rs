//! A temporary rule and queue, through which the run receives the events of ECS.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_eventbridge::types::Target;
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::account::{Account, error_text};
use crate::output::now;

const TARGET: &str = "queue";

/// An event, and the time when it was received, in epoch milliseconds.
#[derive(Clone, Debug)]
pub struct Received {
    /// The time.
    pub at: i64,
    /// The event.
    pub event: Value,
}

/// A rule and a queue. Dropping it stops receiving. Rule and queue are removed by name.
#[derive(Debug)]
pub struct Watch {
    received: Arc<Mutex<Vec<Received>>>,
    listener: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Watch {
    /// Creates both, and starts to receive the events of a cluster.
    pub async fn begin(account: &Account, name: &str, cluster_arn: &str) -> Result<Self, String> {
        let queue = account.sqs.create_queue().queue_name(name).send().await.map_err(|error| error_text(&error))?;
        let url = queue.queue_url.unwrap_or_default();
        let wanted = QueueAttributeName::QueueArn;
        let attributes =
            account.sqs.get_queue_attributes().queue_url(&url).attribute_names(wanted.clone()).send().await;
        let attributes = attributes.map_err(|error| error_text(&error))?.attributes.unwrap_or_default();
        let queue_arn = attributes.get(&wanted).cloned().unwrap_or_default();
        let pattern = json!({"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"], "detail": {"clusterArn": [cluster_arn]}});
        let rule = account.events.put_rule().name(name).event_pattern(pattern.to_string()).send().await;
        let rule_arn = rule.map_err(|error| error_text(&error))?.rule_arn.unwrap_or_default();
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": queue_arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule_arn}},
        }]});
        let allowed = account.sqs.set_queue_attributes().queue_url(&url);
        let allowed = allowed.attributes(QueueAttributeName::Policy, policy.to_string()).send().await;
        allowed.map_err(|error| error_text(&error))?;
        let target = Target::builder().id(TARGET).arn(&queue_arn).build().map_err(|error| error.to_string())?;
        let targets = account.events.put_targets().rule(name).targets(target).send().await;
        targets.map_err(|error| error_text(&error))?;

        let received = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::spawn(listen(account.sqs.clone(), url, Arc::clone(&received)));
        Ok(Self { received, listener })
    }

    /// Stops receiving. Received events are kept.
    pub fn end(&self) {
        self.listener.abort();
    }

    /// Returns the events that were received.
    pub fn events(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the events of the task with this `startedBy`, in the order of their versions.
    pub fn of(&self, started_by: &str) -> Vec<Received> {
        let mut events = self.events();
        events
            .retain(|received| received.event.pointer("/detail/startedBy").and_then(Value::as_str) == Some(started_by));
        events.sort_by_key(|received| received.event.pointer("/detail/version").and_then(Value::as_i64));
        events
    }

    /// Removes a rule with its target.
    pub async fn remove_rule(account: &Account, name: &str) -> Result<(), String> {
        let targets = account.events.remove_targets().rule(name).ids(TARGET).send().await;
        targets.map_err(|error| error_text(&error))?;
        account.events.delete_rule().name(name).send().await.map(drop).map_err(|error| error_text(&error))
    }
}

async fn listen(sqs: aws_sdk_sqs::Client, url: String, received: Arc<Mutex<Vec<Received>>>) {
    loop {
        let answer = sqs.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(5).send().await;
        let Ok(answer) = answer else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        for message in answer.messages.unwrap_or_default() {
            if let Some(event) = message.body.as_deref().and_then(|body| serde_json::from_str(body).ok()) {
                received.lock().unwrap_or_else(PoisonError::into_inner).push(Received { at: now(), event });
            }
            let _ = sqs.delete_message().queue_url(&url).set_receipt_handle(message.receipt_handle).send().await;
        }
    }
}
