//! `ecs-bridge show`

use clap::Args;
use serde_json::Value;
use thiserror::Error;

use crate::bridge::{BridgeError, Record, Where};
use crate::output::{self, iso};

/// Show all that is known of a submission
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

/// Why nothing can be shown.
#[derive(Debug, Error)]
pub enum ShowError {
    /// Nobody submitted it, or too long ago.
    #[error("no submission {0}")]
    NotFound(String),
    /// The bridge did not answer as it should.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    /// The machine refuses something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Show {
    pub fn run(self) -> Result<(), ShowError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let record = self.bridge.find().await?.record(&self.id).await.map_err(|error| {
                if error.is_not_found() { ShowError::NotFound(self.id.clone()) } else { error.into() }
            })?;
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
    // First what one looks for, then the rest.
    let first = ["submission_id", "state", "exit_code", "reason", "attempt", "stop_code", "stopped_reason", "task_arn"];
    let known = first.into_iter().filter(|name| record.contains_key(*name));
    let rest = record.keys().map(String::as_str).filter(|name| !first.contains(name));
    known.chain(rest).map(|name| format!("{name:<width$}  {}\n", shown(record, name))).collect()
}

fn shown(record: &Record, name: &str) -> String {
    let time = output::millis(record, name);
    match time {
        // In seconds, as DynamoDB wants it.
        Some(time) if name == "expires_at" => iso(time.saturating_mul(1_000)),
        Some(time) if name.ends_with("_at") || matches!(name, "launch_deadline" | "unanswered_since") => iso(time),
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
