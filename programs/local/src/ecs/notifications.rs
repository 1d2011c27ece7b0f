//! Step Functions and EventBridge, with the operations that send completion notifications. They share the address, the
//! rules and the faults of ECS.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{ApiError, parse};
use super::state::{Ecs, Notification};
use crate::clock::Millis;
use crate::http::lock;

/// The prefixes of their operation names.
pub(super) const TARGETS: [&str; 2] = ["AWSStepFunctions.", "AWSEvents."];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SendTask {
    task_token: String,
    #[serde(default)]
    output: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    cause: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEvents {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    source: String,
    detail_type: String,
    detail: String,
    #[serde(default)]
    event_bus_name: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
}

impl Ecs {
    /// Ends a waiting state. A second call for its task token returns TaskTimedOut, as in Step Functions.
    pub(super) fn send_task(&self, operation: &str, body: &Value) -> Result<Value, ApiError> {
        let SendTask { task_token, output, error, cause } = parse(body)?;
        let text = output.or(cause).unwrap_or_default();
        let end = serde_json::from_str(&text)
            .map_err(|_| ApiError::new("InvalidOutput", "Invalid Output: Provided output is not JSON"))?;
        let mut state = lock(&self.state);
        if state.notifications.iter().any(|sent| sent.to == task_token) {
            let message = "Task Timed Out: 'Provided task does not exist anymore'";
            return Err(ApiError::new("TaskTimedOut", message));
        }
        state.notifications.push(Notification {
            operation: operation.to_owned(),
            at: Millis::now().0,
            to: task_token,
            error,
            end,
        });
        Ok(json!({}))
    }

    /// Puts events on the bus of the stack.
    pub(super) fn put_events(self: &Arc<Self>, body: &Value) -> Result<Value, ApiError> {
        let PutEvents { entries } = parse(body)?;
        let mut answers = Vec::new();
        for (number, Entry { source, detail_type, detail, event_bus_name, resources }) in
            entries.into_iter().enumerate()
        {
            let Ok(end) = serde_json::from_str::<Value>(&detail) else {
                answers.push(json!({"ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed."}));
                continue;
            };
            let sent = lock(&self.state).notifications.len();
            let id = self.settings.chance.uuid("event", &format!("notification {sent} {number}"));
            let event = json!({
                "version": "0", "id": id, "detail-type": detail_type, "source": source,
                "account": self.settings.location.account, "time": Millis::now().iso(),
                "region": self.settings.location.region, "resources": resources, "detail": end,
            });
            self.bus.put(event, &id);
            let to = event_bus_name.unwrap_or_else(|| "default".to_owned());
            let operation = "PutEvents".to_owned();
            lock(&self.state).notifications.push(Notification { operation, at: Millis::now().0, to, error: None, end });
            answers.push(json!({"EventId": id}));
        }
        let failed = answers.iter().filter(|answer| answer.get("ErrorCode").is_some()).count();
        Ok(json!({"FailedEntryCount": failed, "Entries": answers}))
    }
}
