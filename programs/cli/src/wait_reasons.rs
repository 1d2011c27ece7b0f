//! Why submissions that have not been launched are waiting.

use serde_json::Value;

use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::client::pool_row::{PoolRow, WaitReason};
use crate::record::{Record, text};

/// Returns the reason why a submission is waiting, or none if it is not waiting.
pub async fn wait_reason(client: &Client, record: &Record) -> Result<Option<String>, ClientError> {
    if text(record, "state") != "queued" {
        return Ok(None);
    }
    let Some(key) = record.get("pool").and_then(Value::as_str) else {
        return Ok(Some("waits for a launch".to_owned()));
    };
    let row = client.pool(&text(record, "profile")).await?;
    let ids = client.in_pool(key).await?;
    let id = text(record, "submission_id");
    let place = ids.iter().position(|other| *other == id).map(|at| at + 1);
    Ok(Some(pool_wait_reason(&row, key, place, &ids.len().to_string())))
}

/// Returns the wait reason of a submission at this place in the queue of its pool, which has `of` submissions.
pub fn pool_wait_reason(row: &PoolRow, key: &str, place: Option<usize>, of: &str) -> String {
    let mut words = "waits for a runner".to_owned();
    if let Some(place) = place {
        words += &format!(", place {place} of {of}");
    }
    let reason = row.wait_reason(key);
    if let Some(WaitReason { reason, .. }) = reason.as_ref().filter(|reason| reason.stuck) {
        words += &format!("; stuck: {reason}");
    } else if row.is_paused() {
        words += "; the pool is paused";
    } else if let Some(WaitReason { reason, .. }) = reason {
        words += &format!("; {reason}");
    } else if let Some(failure) = row.failure() {
        words += &format!("; runners fail to start: {failure}");
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pool_wait_reason_names_place_and_cause() {
        let reason = |pool: Value, place, of| {
            pool_wait_reason(&PoolRow::new(pool.as_object().unwrap().clone()), "etl#1", place, of)
        };
        assert_eq!(reason(json!({}), Some(3), "17"), "waits for a runner, place 3 of 17");
        assert_eq!(reason(json!({"paused": true}), None, "0"), "waits for a runner; the pool is paused");
        assert_eq!(
            reason(json!({"failing_since": 1, "failure": "no such image"}), Some(1), "1"),
            "waits for a runner, place 1 of 1; runners fail to start: no such image"
        );
        let noted =
            |key: &str, stuck| json!({"paused": true, "wait_reasons": {key: {"reason": "no spec", "stuck": stuck}}});
        assert_eq!(reason(noted("etl#1", true), None, "0"), "waits for a runner; stuck: no spec");
        assert_eq!(reason(noted("etl#1", false), None, "0"), "waits for a runner; the pool is paused");
        assert_eq!(reason(noted("etl#2", true), None, "0"), "waits for a runner; the pool is paused");
    }
}
