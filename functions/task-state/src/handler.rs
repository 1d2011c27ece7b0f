//! One event: read the record, decide, write.

use ecs_bridge_aws::{Bridge, BridgeError, Wake, telemetry};
use ecs_bridge_core::{
    Input, State,
    event::{self, Event},
};

/// Applies an event to the record of its submission. One read; one write if it changes something.
///
/// Ignores events of other deployments, and counts unusable ones: a retry would not help.
///
/// # Errors
/// If DynamoDB is unavailable, or a task that should not be alive was not stopped: Lambda retries, and later sends the event
/// to the dead-letter queue.
pub async fn handle(bridge: &Bridge, wake: &Wake, event: &str) -> Result<(), BridgeError> {
    let (submission_id, task) = match event::parse(event, &bridge.rules.deployment) {
        Ok(Event::Ours(submission_id, task)) => (submission_id, task),
        Ok(Event::Foreign) => {
            tracing::debug!("ignored an event of another deployment");
            return Ok(());
        }
        Err(error) => {
            telemetry::unusable_event(&error);
            return Ok(());
        }
    };
    let Some(record) = bridge.table.get(&submission_id).await? else {
        // An event creates no record: the record is written before RunTask is called, so this one has expired.
        tracing::warn!(%submission_id, task = task.id(), "ignored an event of an unknown submission");
        return Ok(());
    };
    let record = bridge.settle(record, Input::Seen(*task)).await?;
    // It served a submission, or was idle and is to be replaced.
    let lost_its_runner =
        record.state.is_terminal() && record.runner.as_ref().is_some_and(|it| it.serves.is_some() || !it.closing);
    let is_asked_again = record.asked_again && !record.state.is_terminal();
    if record.state == State::Queued || lost_its_runner || is_asked_again {
        // The next attempt is to be launched, waits for another runner, or for ECS to be asked once more.
        wake.wake(&bridge.table).await;
    }
    Ok(())
}
