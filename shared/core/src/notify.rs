//! Describes notifications of a submission's outcome, to a waiting state machine and to an event bus.
//!
//! The write that ends a submission leaves its targets in the record's `pending_notifications`. The record stays on the
//! timer until each target is notified. Each gets its notification at least once, and twice only if a process died or a
//! response was lost.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{record::Record, state::State, time::Timestamp};

/// The limit of SendTaskSuccess on a task token, in characters (`taskToken` in the Step Functions API Reference).
pub const TASK_TOKEN: usize = 2_048;

/// The source of the events.
pub const SOURCE: &str = "ecs-bridge";

/// Their detail type.
pub const DETAIL_TYPE: &str = "Submission State Change";

/// The token of a waiting state, `$$.Task.Token` in its definition. Any principal that has it, and the permission, can
/// end that state, so it appears in no log and no response.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TaskToken(String);

impl TaskToken {
    /// Returns the token as Step Functions issued it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a digest that identifies the token without revealing it.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(&self.0);
        digest.iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Debug for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskToken({})", self.digest())
    }
}

/// The text is not a task token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("notify.task_token must be a token of Step Functions: 1 to {TASK_TOKEN} characters, such as $$.Task.Token")]
pub struct InvalidTaskToken;

impl TryFrom<String> for TaskToken {
    type Error = InvalidTaskToken;

    fn try_from(token: String) -> Result<Self, InvalidTaskToken> {
        let is_valid = (1..=TASK_TOKEN).contains(&token.len()) && token.chars().all(|it| it.is_ascii_graphic());
        if is_valid { Ok(Self(token)) } else { Err(InvalidTaskToken) }
    }
}

/// The targets of notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// The token of a waiting state, which receives SendTaskSuccess or SendTaskFailure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token: Option<TaskToken>,
    /// An event bus, by name or ARN, which receives an event of type [`DETAIL_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bus: Option<String>,
}

impl Notify {
    /// Returns true if there are no targets.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Replaces the token by its digest, for logs.
    #[must_use]
    pub fn masked(self) -> Self {
        Self { task_token: self.task_token.map(|token| TaskToken(token.digest())), ..self }
    }
}

/// The notifications of a record that are not delivered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PendingNotifications {
    /// Their targets.
    pub notify: Notify,
    /// The number of times that their delivery was claimed.
    #[serde(default)]
    pub claims: u32,
    /// The time of the first of these claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The error of the last delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<Notify> for PendingNotifications {
    fn from(notify: Notify) -> Self {
        Self { notify, ..Self::default() }
    }
}

/// The notifications that were delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notified {
    /// The time at which the event bus accepted its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bus_at: Option<Timestamp>,
    /// The time at which Step Functions accepted the outcome for a token, or responded that the token is no longer
    /// valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token_at: Option<Timestamp>,
    /// The [digest](TaskToken::digest) of that token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token: Option<String>,
}

/// The outcome of an attempt to deliver notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delivery {
    /// The number of the claim for these pending notifications, which starts at 1.
    pub nth: u32,
    /// True if the event bus has accepted its event.
    pub event_bus: bool,
    /// True if Step Functions has accepted the outcome for the token, or responded that the token is no longer valid.
    pub task_token: bool,
    /// The error if a target remains: a service's error code, or that no response arrived.
    pub error: Option<String>,
}

/// The targets that the deployment's roles allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    task_tokens: bool,
    event_buses: Vec<String>,
}

/// The error for which the targets of a submission or a profile are rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The value is not an object with the known members.
    #[error("notify must be an object with task_token or event_bus, strings, or both")]
    Malformed,
    /// The task token is invalid, as described at [`InvalidTaskToken`].
    #[error(transparent)]
    TaskToken(#[from] InvalidTaskToken),
    /// The roles do not allow SendTaskSuccess.
    #[error(
        "notify.task_token: the deployment's roles may not call Step Functions; its parameter TaskTokens must be true"
    )]
    NoTaskTokens,
    /// The roles do not allow PutEvents on this event bus.
    #[error(
        "notify.event_bus: the deployment's roles may not put events on this bus; known: {}; its parameter EventBusArns lists them",
        if .0.is_empty() { "none".to_owned() } else { .0.join(", ") }
    )]
    UnknownBus(Vec<String>),
}

impl Listeners {
    /// Creates the allowed targets: `task_tokens` if they are accepted, and `event_buses`, which are names or ARNs
    /// separated by commas.
    pub fn new(task_tokens: bool, event_buses: &str) -> Self {
        let event_buses = event_buses.split(',').map(str::trim).filter(|bus| !bus.is_empty());
        Self { task_tokens, event_buses: event_buses.map(str::to_owned).collect() }
    }

    /// Parses `notify` of a submission or a profile.
    ///
    /// # Errors
    ///
    /// If it is malformed, or the deployment's roles do not allow it.
    pub fn parse(&self, value: Value) -> Result<Notify, NotifyError> {
        let Value::Object(mut members) = value else { return Err(NotifyError::Malformed) };
        let mut text = |name| match members.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(NotifyError::Malformed),
        };
        let (task_token, event_bus) = (text("task_token")?, text("event_bus")?);
        if !members.is_empty() {
            return Err(NotifyError::Malformed);
        }
        let task_token = task_token.map(TaskToken::try_from).transpose()?;
        if task_token.is_some() && !self.task_tokens {
            return Err(NotifyError::NoTaskTokens);
        }
        if event_bus.as_ref().is_some_and(|bus| !self.event_buses.iter().any(|known| is_same_bus(known, bus))) {
            return Err(NotifyError::UnknownBus(self.event_buses.clone()));
        }
        Ok(Notify { task_token, event_bus })
    }
}

/// Returns true if both denote the same bus. PutEvents takes a name for a bus of its account and Region, and an ARN
/// ends with the name.
fn is_same_bus(one: &str, other: &str) -> bool {
    let name = |bus: &str| bus.split_once(":event-bus/").map(|(_, name)| name.to_owned());
    one == other || name(one).as_deref() == Some(other) || name(other).as_deref() == Some(one)
}

/// Returns the error name for `Retry` and `Catch` in the definition of a state machine, or none for a success.
pub const fn error_name(state: State) -> Option<&'static str> {
    match state {
        State::Failed => Some("EcsBridge.Failed"),
        State::Rejected => Some("EcsBridge.Rejected"),
        State::Expired => Some("EcsBridge.Expired"),
        State::Cancelled => Some("EcsBridge.Cancelled"),
        State::Lost => Some("EcsBridge.Lost"),
        State::Queued | State::Launching | State::Launched | State::Running | State::Succeeded => None,
    }
}

impl Record {
    /// Adds the new targets of a repeated submission, because a restarted state machine waits with another token.
    /// Returns true if a target is new.
    pub(crate) fn add_listeners(&mut self, wanted: &Notify) -> bool {
        let notified = self.notified.as_deref().cloned().unwrap_or_default();
        let known = self
            .pending_notifications
            .as_ref()
            .map(|pending_notifications| pending_notifications.notify.clone())
            .unwrap_or_default();
        let mut next = known.clone();
        if let Some(token) = &wanted.task_token
            && notified.task_token.as_ref() != Some(&token.digest())
        {
            next.task_token = Some(token.clone());
        }
        if next.event_bus.is_none() && notified.event_bus_at.is_none() {
            next.event_bus.clone_from(&wanted.event_bus);
        }
        let is_news = next != known;
        if is_news {
            let claims =
                self.pending_notifications.as_ref().map_or(0, |pending_notifications| pending_notifications.claims);
            self.pending_notifications = Some(Box::new(PendingNotifications { claims, ..next.into() }));
        }
        is_news
    }

    /// Replaces the token in its pending notifications by its digest.
    #[must_use]
    pub fn masked(mut self) -> Self {
        if let Some(pending_notifications) = &mut self.pending_notifications {
            pending_notifications.notify = std::mem::take(&mut pending_notifications.notify).masked();
        }
        self
    }

    /// Returns true if the record has ended and no notification is pending.
    pub fn is_settled(&self) -> bool {
        self.state().is_terminal() && self.pending_notifications.is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BUS: &str = "arn:aws:events:eu-west-1:123456789012:event-bus/ends";

    fn parse(value: Value) -> Result<Notify, NotifyError> {
        Listeners::new(true, &format!("default, {BUS}")).parse(value)
    }

    #[test]
    fn a_bus_is_known_by_name_and_by_arn() {
        for bus in [BUS, "ends", "default"] {
            assert_eq!(parse(json!({"event_bus": bus})).unwrap().event_bus.as_deref(), Some(bus));
        }
        for bus in ["", "end", "other", "arn:aws:events:eu-west-1:210987654321:event-bus/ends"] {
            assert!(matches!(parse(json!({"event_bus": bus})), Err(NotifyError::UnknownBus(_))), "{bus}");
        }
    }

    #[test]
    fn invalid_notification_target_is_rejected_without_quote() {
        let malformed = [json!([]), json!("x"), json!({"task_token": 1}), json!({"lambda": "secret"})];
        for value in malformed {
            assert_eq!(parse(value).unwrap_err(), NotifyError::Malformed);
        }
        for token in [String::new(), "sec ret".to_owned(), "x".repeat(TASK_TOKEN + 1)] {
            let error = parse(json!({"task_token": token})).unwrap_err();
            assert_eq!(error, NotifyError::TaskToken(InvalidTaskToken));
        }
        assert_eq!(parse(json!({"task_token": "x".repeat(TASK_TOKEN)})).unwrap().event_bus, None);
    }

    #[test]
    fn deployment_without_rights_refuses_targets() {
        let nobody = Listeners::default();
        assert_eq!(nobody.parse(json!({"task_token": "t"})).unwrap_err(), NotifyError::NoTaskTokens);
        let error = nobody.parse(json!({"event_bus": "default"})).unwrap_err().to_string();
        assert!(error.contains("known: none") && error.contains("EventBusArns"), "{error}");
        assert_eq!(nobody.parse(json!({})).unwrap(), Notify::default());
    }

    #[test]
    fn a_token_is_neither_in_debug_output_nor_in_what_is_masked() {
        let notify = Notify { task_token: Some(TaskToken("AQC8secret".to_owned())), event_bus: None };
        assert!(!format!("{notify:?}").contains("secret"));
        let masked = serde_json::to_string(&notify.clone().masked()).unwrap();
        assert!(!masked.contains("secret") && masked.contains(&notify.task_token.unwrap().digest()));
    }
}
