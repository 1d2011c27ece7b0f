//! Completion notifications to Step Functions and to an event bus.

use std::{cell::OnceCell, fmt, pin::Pin, rc::Rc, time::Duration};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use ecs_bridge_core::{
    Record,
    notify::{DETAIL_TYPE, Delivery, Notify, SOURCE, TaskToken, error_name},
};
use serde_json::{Value, json};

/// Both services respond in milliseconds. A duplicate notification after a stale connection is harmless.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The errors of Step Functions for a token that no state waits for any longer, because the state has ended or timed
/// out.
const NOBODY_WAITS: [&str; 3] = ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"];

type Delivering<'a> = Pin<Box<dyn Future<Output = Delivery> + 'a>>;
type Deliver = dyn for<'a> Fn(&'a Record, u32) -> Delivering<'a>;

/// Delivers notifications. It is a closure so that functions without notifications do not link the clients, which are
/// a tenth of the zip.
pub struct Notifier(Box<Deliver>);

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

struct Clients {
    states: aws_sdk_sfn::Client,
    events: aws_sdk_eventbridge::Client,
}

impl Notifier {
    /// Creates a notifier with the configuration of the functions' other clients.
    pub fn new(config: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build();
        // A notification that fails twice is retried at its next check, because an invocation has only 15 s.
        let retries = RetryConfig::standard().with_max_attempts(2);
        let config = config.to_builder().timeout_config(timeouts).retry_config(retries).build();
        // The clients are built at the first notification. Few deployments have notifications, and other cold starts
        // stay unchanged.
        let clients = OnceCell::new();
        Self(Box::new(move |record, nth| {
            let clients = Rc::clone(clients.get_or_init(|| Rc::new(Clients::new(&config))));
            Box::pin(async move { clients.notify(record, nth).await })
        }))
    }

    /// Delivers pending notifications under the `nth` claim.
    pub async fn notify(&self, record: &Record, nth: u32) -> Delivery {
        self.0(record, nth).await
    }
}

impl Clients {
    fn new(config: &SdkConfig) -> Self {
        Self { states: aws_sdk_sfn::Client::new(config), events: aws_sdk_eventbridge::Client::new(config) }
    }

    async fn notify(&self, record: &Record, nth: u32) -> Delivery {
        let Some(pending_notifications) = record.pending_notifications.as_deref() else {
            return Delivery { nth, ..Delivery::default() };
        };
        let Notify { task_token, event_bus } = &pending_notifications.notify;
        let (token, bus) =
            tokio::join!(self.answer(record, task_token.as_ref()), self.put(record, event_bus.as_deref()));
        Delivery { nth, task_token: token.is_ok(), event_bus: bus.is_ok(), error: bus.and(token).err() }
    }

    /// Completes the state that waits with this token.
    async fn answer(&self, record: &Record, token: Option<&TaskToken>) -> Result<(), String> {
        let Some(token) = token.map(TaskToken::as_str) else { return Ok(()) };
        let shown = content(record).to_string();
        let sent = match error_name(record.state()) {
            None => {
                self.states.send_task_success().task_token(token).output(shown).send().await.map(drop).map_err(code_of)
            }
            Some(error) => {
                let failure = self.states.send_task_failure().task_token(token).error(error).cause(shown);
                failure.send().await.map(drop).map_err(code_of)
            }
        };
        match sent {
            Err(code) if NOBODY_WAITS.contains(&code.as_str()) => {
                tracing::warn!(submission_id = %record.submission_id, code, "ignored notification; no state machine waits for it");
                Ok(())
            }
            sent => sent,
        }
    }

    async fn put(&self, record: &Record, bus: Option<&str>) -> Result<(), String> {
        let Some(bus) = bus else { return Ok(()) };
        let mut detail = content(record);
        if let (Some(members), Some(deployment)) = (detail.as_object_mut(), &record.feed) {
            members.insert("deployment".to_owned(), json!(deployment));
        }
        let entry = PutEventsRequestEntry::builder()
            .source(SOURCE)
            .detail_type(DETAIL_TYPE)
            .event_bus_name(bus)
            .set_resources(record.attempt.task_arn.clone().map(|arn| vec![arn]))
            .detail(Value::to_string(&detail))
            .build();
        let answer = self.events.put_events().entries(entry).send().await.map_err(code_of)?;
        match answer.entries().first().and_then(|entry| entry.error_code()) {
            None => Ok(()),
            Some(code) => Err(code.to_owned()),
        }
    }
}

/// Returns the record as the API shows it, without this notification.
fn content(record: &Record) -> Value {
    let mut shown = record.public();
    if let Some(members) = shown.as_object_mut() {
        members.remove("pending_notifications");
    }
    shown
}

/// Returns a service's error code, or a message about a missing response.
fn code_of<E: ProvideErrorMetadata, R>(error: SdkError<E, R>) -> String {
    error.code().unwrap_or("no answer").to_owned()
}
