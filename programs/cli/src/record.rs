//! Records of submissions, as the API and the table return them.

use serde_json::{Map, Value};

/// A record of the API, or a row of the table.
pub type Record = Map<String, Value>;

/// Returns an attribute as text, or `-` if it is absent.
pub fn text(record: &Record, name: &str) -> String {
    match record.get(name) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Returns a time of a record in epoch milliseconds, or any other whole number.
pub fn millis(record: &Record, name: &str) -> Option<i64> {
    record.get(name).and_then(Value::as_i64)
}

/// Returns the id of the task.
pub fn task_id(record: &Record) -> String {
    let arn = text(record, "task_arn");
    arn.rsplit('/').next().unwrap_or(&arn).to_owned()
}

/// Returns `true` if the submission has ended.
pub fn is_terminal(record: &Record) -> bool {
    let state = text(record, "state");
    matches!(state.as_str(), "succeeded" | "failed" | "rejected" | "expired" | "cancelled" | "lost")
}

/// Returns the state of a submission and its reasons on one line.
pub fn summary(record: &Record) -> String {
    let mut line = text(record, "state");
    let attempt = text(record, "attempt");
    if attempt != "1" && attempt != "-" {
        line.push_str(&format!(", attempt {attempt}"));
    }
    // Most reasons name the stop code.
    let has_the_code = text(record, "reason").contains(&text(record, "stop_code"));
    for (name, words) in [("task_arn", "task "), ("exit_code", "exit code "), ("stop_code", ""), ("reason", "")] {
        if record.contains_key(name) && !(name == "stop_code" && has_the_code) {
            let value = if name == "task_arn" { task_id(record) } else { text(record, name) };
            line.push_str(&format!(", {words}{value}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn summary_names_a_stop_code_once() {
        let line = |value: Value| summary(value.as_object().unwrap());
        let reason = "TaskFailedToStart: CannotPullContainerError: not found";
        assert_eq!(
            line(json!({"state": "failed", "stop_code": "TaskFailedToStart", "reason": reason})),
            format!("failed, {reason}")
        );
        assert_eq!(
            line(
                json!({"state": "failed", "stop_code": "UserInitiated", "exit_code": 1, "reason": "container main exited with 1"})
            ),
            "failed, exit code 1, UserInitiated, container main exited with 1"
        );
        assert_eq!(line(json!({"state": "failed", "stop_code": "UserInitiated"})), "failed, UserInitiated");
    }

    #[test]
    fn summary_contains_known_attributes() {
        let fields = json!({"state": "failed", "attempt": 2, "task_arn": "arn:x:task/c/abc", "exit_code": 7});
        assert_eq!(summary(fields.as_object().unwrap()), "failed, attempt 2, task abc, exit code 7");
    }
}
