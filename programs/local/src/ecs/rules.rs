//! Rules, by which tests inject a fault into the next calls of an operation.

use serde::Deserialize;
use serde_json::Value;

/// A fault for the next calls of an operation.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rule {
    #[serde(default = "run_task")]
    pub(super) operation: String,
    /// Applies only to this submission, if the call has a startedBy.
    #[serde(default)]
    pub(super) submission_id: Option<String>,
    /// Applies only to this task definition, if the call names one.
    #[serde(default)]
    pub(super) task_definition: Option<String>,
    /// Applies only to tasks with this much memory by `overrides.memory`, in MiB.
    #[serde(default)]
    pub(super) memory: Option<String>,
    /// The number of calls to which it applies.
    #[serde(default = "once")]
    pub(super) times: u32,
    #[serde(flatten)]
    pub(super) then: Then,
}

/// The fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Then {
    /// The task has these shapes.
    Shapes(String),
    /// The call fails and has no effect.
    Error { code: String, message: String },
    /// RunTask returns this in `failures`.
    Failure(String),
    /// RunTask returns this in `failures`, but launches the task.
    LaunchedFailure(String),
    /// The call takes effect, and gets this response.
    Answer(Answer),
    /// `true` if RunTask starts another task for a client token that has started one.
    ForgetToken(bool),
}

/// The response to a call that took effect.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A status 500.
    ServerError,
    /// No response: the connection is closed.
    None,
}

fn run_task() -> String {
    "RunTask".into()
}

fn once() -> u32 {
    1
}

/// Consumes one use of the first rule that matches this call.
pub(super) fn take_rule(rules: &mut Vec<Rule>, operation: &str, body: &Value) -> Option<Then> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let submission = text("/startedBy").unwrap_or_default().split('/').nth(1);
    let task_definition = text("/taskDefinition");
    let memory = text("/overrides/memory");
    let at = rules.iter().position(|rule| {
        rule.operation == operation
            && (rule.submission_id.is_none() || rule.submission_id.as_deref() == submission)
            && (rule.task_definition.is_none() || rule.task_definition.as_deref() == task_definition)
            && (rule.memory.is_none() || rule.memory.as_deref() == memory)
    })?;
    let rule = rules.get_mut(at)?;
    let then = rule.then.clone();
    rule.times = rule.times.saturating_sub(1);
    if rule.times == 0 {
        rules.remove(at);
    }
    Some(then)
}
