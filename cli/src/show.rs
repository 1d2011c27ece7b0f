//! `ecs-bridge show`

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use crate::bridge::{BridgeError, Record, Where};
use crate::output::{self, iso};
use crate::pools::waits_for;

/// Show the record of a submission
#[derive(Args)]
pub struct Show {
    /// The submission's id
    id: String,
    /// Write the record as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum ShowError {
    /// There is no such submission, or its record has expired.
    #[error("no submission {0}")]
    NotFound(String),
    /// The bridge failed.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Show {
    pub fn run(self) -> Result<(), ShowError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let bridge = self.bridge.find().await?;
            let mut record = bridge.record(&self.id).await.map_err(|error| {
                if error.is_not_found() { ShowError::NotFound(self.id.clone()) } else { error.into() }
            })?;
            if bridge.has_table()
                && let Some(row) = bridge.records(std::slice::from_ref(&self.id)).await?.first()
                && let Some(waits) = waits_for(&bridge, row).await?
            {
                record.insert("waits".to_owned(), waits.into());
            }
            if self.json {
                output::say(Value::Object(record));
            } else {
                output::say(describe(&record).trim_end());
            }
            Ok(())
        })
    }
}

fn describe(record: &Record) -> String {
    let width = record.keys().map(String::len).max().unwrap_or_default();
    // The most wanted attributes first.
    let first = [
        "submission_id",
        "state",
        "waits",
        "exit_code",
        "reason",
        "advice",
        "attempt",
        "stop_code",
        "stopped_reason",
        "task_arn",
    ];
    let known = first.into_iter().filter(|name| record.contains_key(*name));
    let rest = record.keys().map(String::as_str).filter(|name| !first.contains(name));
    known.chain(rest).map(|name| format!("{name:<width$}  {}\n", shown(record, name))).collect()
}

fn shown(record: &Record, name: &str) -> String {
    let time = output::millis(record, name);
    match time {
        // In seconds, the unit of DynamoDB's time to live.
        Some(time) if name == "expires_at" => iso(time.saturating_mul(1_000)),
        Some(time) if name.ends_with("_at") || name.ends_with("_since") || name == "launch_deadline" => iso(time),
        _ => output::text(record, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable_and_the_state_comes_early() {
        let record = serde_json::json!({"created_at": 1_597_428_383_679_i64, "expires_at": 1_597_428_383, "rev": 3,
            "state": "failed", "submission_id": "a"});
        let shown = describe(record.as_object().unwrap());
        assert_eq!(
            shown,
            "submission_id  a\nstate          failed\ncreated_at     2020-08-14T18:06:23.679Z\n\
             expires_at     2020-08-14T18:06:23Z\nrev            3\n"
        );
    }
}
