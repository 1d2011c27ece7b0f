//! The names of a local stack that no option changes.

pub(super) const REGION: &str = "us-east-1";
pub(super) const ACCOUNT: &str = "123456789012";
/// The names of the functions' binaries.
pub(super) const SUBMIT: &str = "submit";
pub(super) const TASK_STATE: &str = "task-state";
pub(super) const RECONCILE: &str = "reconcile";
pub(super) const RUNNER_API: &str = "runner-api";
