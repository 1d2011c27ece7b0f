//! `ecs-bridge show`

use clap::Args;
use serde_json::Value;

use crate::client::connection::Client;
use crate::client::find::BridgeOptions;
use crate::container_logs::last_lines;
use crate::error::CommandError;
use crate::ids;
use crate::output::{self, duration, iso};
use crate::record::{Record, millis, text};
use crate::wait_reasons::wait_reason;

/// Show the record of a submission, its timeline, and the last lines of a failed command
#[derive(Args)]
pub struct Show {
    /// The id of the submission, or an unambiguous beginning of it
    id: String,
    /// Write the record as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

impl Show {
    pub fn run(self) -> Result<(), CommandError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = self.bridge.find().await?;
            let (id, mut record) = ids::find(&client, &self.id).await?;
            if client.has_table()
                && let Some(row) = client.records(std::slice::from_ref(&id)).await?.first()
            {
                if let Some(reason) = wait_reason(&client, row).await? {
                    record.insert("waits".to_owned(), reason.into());
                }
                if let Some(changed_at) = row.get("changed_at") {
                    record.insert("changed_at".to_owned(), changed_at.clone());
                }
            }
            if self.json {
                output::say(Value::Object(record));
            } else {
                output::say(format!("{}\n{}", describe(&record), timeline(&record)).trim_end());
                show_last_lines(&client, &record).await;
            }
            Ok(())
        })
    }
}

/// Shows the last lines of a failed command, if they can be read.
async fn show_last_lines(client: &Client, record: &Record) {
    const LINES: usize = 10;
    if text(record, "state") != "failed" {
        return;
    }
    let lines = last_lines(client, record, LINES).await;
    if !lines.is_empty() {
        let id = text(record, "submission_id");
        output::say(format!("\nThe last lines of its output (`ecs-bridge logs {id}` shows more):"));
        lines.iter().for_each(|line| output::say(format!("  {line}")));
    }
}

fn describe(record: &Record) -> String {
    let width = record.keys().map(String::len).max().unwrap_or_default();
    // The most important attributes come first.
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

/// Returns the steps of a submission, with the time between them.
fn timeline(record: &Record) -> String {
    let on = |name| record.get(name).map(|_| format!(" on {}", text(record, name))).unwrap_or_default();
    let with = record.get("exit_code").map(|code| format!(" with {code}")).unwrap_or_default();
    let steps = [
        ("created_at", "submitted".to_owned()),
        ("launched_at", format!("launched{}", on("runs_on"))),
        ("started_at", "started".to_owned()),
        ("container_exited_at", format!("exited{with}")),
        ("changed_at", format!("recorded as {}", text(record, "state"))),
        ("stopped_at", "its task was torn down".to_owned()),
    ];
    let attempts = record.get("attempts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The record keeps only the last attempts.
    let current = record.get("attempt").and_then(Value::as_u64).unwrap_or_default();
    let first = current.saturating_sub(attempts.len() as u64).max(1);
    let mut text: String = (first..)
        .zip(attempts)
        .map(|(nth, end)| format!("attempt {nth} ended: {}\n", end.as_str().unwrap_or_default()))
        .collect();
    let mut before = None;
    let mut steps: Vec<_> = steps.into_iter().filter_map(|(name, what)| Some((millis(record, name)?, what))).collect();
    // The clocks of ECS and the bridge differ slightly.
    steps.sort_by_key(|(at, _)| *at);
    for (at, what) in steps {
        let since = before.replace(at).map_or_else(String::new, |before: i64| format!("+{}", duration(at - before)));
        text += &format!("{}  {since:>8}  {what}\n", iso(at));
    }
    text
}

fn shown(record: &Record, name: &str) -> String {
    let time = millis(record, name);
    match time {
        // In seconds, the unit of DynamoDB's time to live.
        Some(time) if name == "expires_at" => iso(time.saturating_mul(1_000)),
        Some(time) if name.ends_with("_at") || name.ends_with("_since") || name == "launch_deadline" => iso(time),
        _ => text(record, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_shows_known_steps_in_order() {
        let record = serde_json::json!({"state": "failed", "exit_code": 7, "runs_on": "FARGATE_SPOT", "attempt": 2,
            "attempts": ["SpotInterruption"], "created_at": 1_800_000_000_000_i64, "launched_at": 1_800_000_001_200_i64,
            "container_exited_at": 1_800_000_061_200_i64, "changed_at": 1_800_000_061_900_i64});
        assert_eq!(
            timeline(record.as_object().unwrap()),
            "attempt 1 ended: SpotInterruption\n\
             2027-01-15T08:00:00Z            submitted\n\
             2027-01-15T08:00:01.2Z     +1.2s  launched on FARGATE_SPOT\n\
             2027-01-15T08:01:01.2Z    +1m00s  exited with 7\n\
             2027-01-15T08:01:01.9Z     +0.7s  recorded as failed\n"
        );
    }

    #[test]
    fn timeline_numbers_the_attempts_that_are_kept() {
        let record = serde_json::json!({"attempt": 13, "attempts": ["RESOURCE:GPU", "RESOURCE:CPU"]});
        let shown = timeline(record.as_object().unwrap());
        assert_eq!(shown, "attempt 11 ended: RESOURCE:GPU\nattempt 12 ended: RESOURCE:CPU\n");
    }

    #[test]
    fn description_formats_times_and_starts_with_state() {
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
