//! One event: read the record, decide, write.

use ecs_bridge_aws::{Bridge, BridgeError, Wake};
use ecs_bridge_core::{
    Input, State,
    event::{self, Event},
};

/// Takes an event into the record of its submission. One read; one write where it changes something.
///
/// Events of others and poison are let go: trying again would not help.
///
/// # Errors
/// Where the table does not answer, or a task that should not live was not stopped: Lambda then tries again, and later puts the event where it is kept.
pub async fn handle(bridge: &Bridge, wake: &Wake, event: &str) -> Result<(), BridgeError> {
    let (submission_id, task) = match event::parse(event, &bridge.rules.deployment) {
        Ok(Event::Ours(submission_id, task)) => (submission_id, task),
        Ok(Event::Foreign) => {
            tracing::debug!("an event of others was let go");
            return Ok(());
        }
        Err(error) => {
            tracing::error!(%error, "an event cannot be understood, and is let go");
            return Ok(());
        }
    };
    let Some(record) = bridge.table.get(&submission_id).await? else {
        // An event creates no record: the record is written before RunTask is called, so this one has expired.
        tracing::warn!(%submission_id, task = task.id(), "an event of an unknown submission was let go");
        return Ok(());
    };
    let record = bridge.settle(record, Input::Seen(*task)).await?;
    if record.state == State::Queued {
        // The next attempt.
        wake.wake().await;
    }
    Ok(())
}
