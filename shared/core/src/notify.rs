//! Notifications of a submission's end: to a waiting state machine, and to an event bus.
//!
//! The write that ends a submission leaves its targets in the record's `pending_notifications`, and the record stays on the timer
//! until each has got its notification: at least once, and twice only if a process died or an answer was lost.

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

/// The token of a state that waits, `$$.Task.Token` in its definition. Whoever holds it, and the permission, can end that
/// state, so it is in no log and no answer.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TaskToken(String);

impl TaskToken {
    /// As Step Functions issued it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it can be recognised by, without being known.
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

/// Not a task token.
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
    /// A state that waits: it is sent SendTaskSuccess or SendTaskFailure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token: Option<TaskToken>,
    /// An event bus, by name or ARN: it is put an event [`DETAIL_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bus: Option<String>,
}

impl Notify {
    /// Whether there are no targets.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with the digest of its token in place of the token, for logs.
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
    /// How many times their delivery was claimed.
    #[serde(default)]
    pub claims: u32,
    /// When the first of these claims was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why the last delivery failed.
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
    /// When the event bus took its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_bus_at: Option<Timestamp>,
    /// When Step Functions took the end for a token, or answered that nobody waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token_at: Option<Timestamp>,
    /// The [digest](TaskToken::digest) of that token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_token: Option<String>,
}

/// The outcome of an attempt to deliver notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Delivery {
    /// The claim that it was for: the first, second, … of the pending notifications.
    pub nth: u32,
    /// Whether the event bus has taken its event.
    pub event_bus: bool,
    /// Whether Step Functions has taken the end for the token, or answered that nobody waits for it.
    pub task_token: bool,
    /// Why something is left to deliver: a service's error code, or that there was no answer.
    pub error: Option<String>,
}

/// The targets that the deployment's roles allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    task_tokens: bool,
    event_buses: Vec<String>,
}

/// Why the targets of a submission or a profile are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// Not an object of the known members.
    #[error("notify must be an object with task_token or event_bus, strings, or both")]
    Malformed,
    /// See [`InvalidTaskToken`].
    #[error(transparent)]
    TaskToken(#[from] InvalidTaskToken),
    /// The roles do not allow SendTaskSuccess.
    #[error(
        "notify.task_token: the deployment's roles may not call Step Functions; its parameter TaskTokens must be true"
    )]
    NoTaskTokens,
    /// The roles do not allow PutEvents there.
    #[error(
        "notify.event_bus: the deployment's roles may not put events on this bus; known: {}; its parameter EventBusArns lists them",
        if .0.is_empty() { "none".to_owned() } else { .0.join(", ") }
    )]
    UnknownBus(Vec<String>),
}

impl Listeners {
    /// Whether `task_tokens` are taken, and the `event_buses`, names or ARNs separated by commas.
    pub fn new(task_tokens: bool, event_buses: &str) -> Self {
        let event_buses = event_buses.split(',').map(str::trim).filter(|bus| !bus.is_empty());
        Self { task_tokens, event_buses: event_buses.map(str::to_owned).collect() }
    }

    /// Parses `notify` of a submission or a profile.
    ///
    /// # Errors
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

/// Whether both denote one bus. PutEvents takes a name for a bus of its account and region; an ARN ends with the name.
fn is_same_bus(one: &str, other: &str) -> bool {
    let name = |bus: &str| bus.split_once(":event-bus/").map(|(_, name)| name.to_owned());
    one == other || name(one).as_deref() == Some(other) || name(other).as_deref() == Some(one)
}

/// The error name that a failed state gets, for `Retry` and `Catch` of its definition; none for a success.
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
    /// Takes over the targets of a repeated submission, as far as they are others: a state machine that was started again
    /// waits with another token. Returns whether there is a new target.
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

    /// The same with the digest of the token in its pending notifications in place of the token.
    #[must_use]
    pub fn masked(mut self) -> Self {
        if let Some(pending_notifications) = &mut self.pending_notifications {
            pending_notifications.notify = std::mem::take(&mut pending_notifications.notify).masked();
        }
        self
    }

    /// Whether nothing is left to be done: it has ended, and no notification is pending.
    pub fn is_settled(&self) -> bool {
        self.state.is_terminal() && self.pending_notifications.is_none()
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
    fn what_is_not_a_listener_is_refused_without_quoting_it() {
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
