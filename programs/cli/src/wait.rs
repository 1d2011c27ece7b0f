//! `ecs-bridge wait`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::bridge::{Bridge, BridgeError, Record, Where};
use crate::ids::resolve;
use crate::output::{self, parse_time};
use crate::show::ShowError;
use crate::submit::{describe, is_terminal};

/// The exit code if the time was up first, as of `timeout`.
const TIMED_OUT: u8 = 124;
/// The exit code if a submission could not be followed.
const NOT_FOLLOWED: u8 = 126;
/// How long the bridge may be unreachable.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Wait until submissions have ended, and show their outcomes
#[derive(Args)]
#[command(after_help = "\
The exit code is 0 if all submissions succeeded, 1 if one did not, 124 if --timeout elapsed first, and 126 if one does not \
exist or cannot be followed. An interruption stops no submission.")]
pub struct Wait {
    /// The ids of the submissions, or unambiguous beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Wait up to this time: a number of seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// Write one JSON object with the record of each submission by its id
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

impl Wait {
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let code = runtime.map_err(ShowError::from).and_then(|runtime| runtime.block_on(self.wait()));
        ExitCode::from(code.unwrap_or_else(|error| {
            output::report(&error);
            NOT_FOLLOWED
        }))
    }

    async fn wait(&self) -> Result<u8, ShowError> {
        let bridge = self.bridge.find().await?;
        let known = resolve(&bridge, &self.ids, true).await?;
        if let Some(unknown) = known.iter().find(|known| !known.exists) {
            return Err(ShowError::NotFound(unknown.id.clone()));
        }
        let ids: Vec<_> = known.into_iter().map(|known| known.id).collect();
        let ended = until_ended(&bridge, &ids, self.timeout, !self.json).await?;
        if self.json {
            output::say(json!(ended));
        }
        let all_succeeded = ended.values().all(|record| record.get("state") == Some(&"succeeded".into()));
        let is_over = ids.iter().all(|id| ended.contains_key(id));
        Ok(if is_over { u8::from(!all_succeeded) } else { TIMED_OUT })
    }
}

/// The records of those that have ended, once all have or the time is up. Where asked to it `says` each as it ends.
pub async fn until_ended(
    bridge: &Bridge,
    ids: &[String],
    timeout: Option<Duration>,
    says: bool,
) -> Result<BTreeMap<String, Record>, ShowError> {
    let began = Instant::now();
    let mut ended: BTreeMap<String, Record> = BTreeMap::new();
    let mut answered = Instant::now();
    loop {
        let left: Vec<_> = ids.iter().filter(|id| !ended.contains_key(*id)).cloned().collect();
        match look(bridge, &left).await {
            Ok(records) => {
                answered = Instant::now();
                for (id, record) in records.into_iter().filter(|(_, record)| is_terminal(record)) {
                    if says {
                        output::say(format!("{id} {}", describe(&record)));
                    }
                    ended.insert(id, record);
                }
            }
            Err(ShowError::Bridge(error)) if error.is_retryable() && answered.elapsed() < PATIENCE => {
                output::report(&error);
            }
            Err(error) => return Err(error),
        }
        let is_over = ids.iter().all(|id| ended.contains_key(id));
        if is_over || timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            return Ok(ended);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The records of these submissions: from the table a hundred at a time where it is known, else each by the API.
async fn look(bridge: &Bridge, ids: &[String]) -> Result<Vec<(String, Record)>, ShowError> {
    let mut records = Vec::new();
    if bridge.has_table() {
        for record in bridge.records(ids).await? {
            records.push((output::text(&record, "submission_id"), record));
        }
        if let Some(id) = ids.iter().find(|id| !records.iter().any(|(known, _)| known == *id)) {
            return Err(ShowError::NotFound(id.clone()));
        }
        return Ok(records);
    }
    for id in ids {
        let record = bridge.record(id).await.map_err(|error: BridgeError| {
            if error.is_not_found() { ShowError::NotFound(id.clone()) } else { error.into() }
        })?;
        records.push((id.clone(), record));
    }
    Ok(records)
}
