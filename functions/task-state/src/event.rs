//! One event: read the record, decide, write.

use ecs_bridge_aws::{Bridge, BridgeError, Wake, telemetry};
use ecs_bridge_core::{
    Input, State,
    event::{self, Event},
};

/// Applies an event to the record of its submission, with one read, and one write if the event changes the record.
///
/// Ignores events from other deployments and counts invalid events, because a retry would not help.
///
/// # Errors
/// If DynamoDB is unavailable, or an unwanted task was not stopped. Lambda retries, and later sends the event to the
/// dead-letter queue.
pub async fn handle(bridge: &Bridge, wake: &Wake, event: &str) -> Result<(), BridgeError> {
    let (submission_id, task) = match event::parse(event, &bridge.rules.deployment) {
        Ok(Event::Ours(submission_id, task)) => (submission_id, task),
        Ok(Event::Foreign) => {
            tracing::debug!("ignored event from another deployment");
            return Ok(());
        }
        Err(error) => {
            telemetry::unusable_event(&error);
            return Ok(());
        }
    };
    let Some(record) = bridge.table.get(&submission_id).await? else {
        // An event never creates a record. The record is written before RunTask is called, so this one has expired.
        tracing::warn!(%submission_id, task = task.id(), "ignored event of unknown submission");
        return Ok(());
    };
    let record = bridge.settle(record, Input::Seen(*task)).await?;
    // The runner served a submission, or was idle and must be replaced.
    let lost_its_runner =
        record.state().is_terminal() && record.runner().is_some_and(|it| it.serves.is_some() || !it.closing);
    let is_asked_again = record.attempt.asked_again && !record.state().is_terminal();
    if record.state() == State::Queued || lost_its_runner || is_asked_again {
        // The next attempt must be launched, or waits for another runner or for another ECS lookup.
        wake.wake(&bridge.table).await;
    }
    Ok(())
}
