//! Waiting for submissions to end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::error::CommandError;
use crate::output;
use crate::record::{Record, is_terminal, summary, text};

/// The period for which the bridge may be unreachable while submissions are followed.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two reads.
const PAUSE: Duration = Duration::from_secs(1);

/// Returns the records of the submissions that have ended, once all have ended or `timeout` has elapsed. With `print`, writes
/// a line for each as it ends.
pub async fn until_ended(
    client: &Client,
    ids: &[String],
    timeout: Option<Duration>,
    print: bool,
) -> Result<BTreeMap<String, Record>, CommandError> {
    let start = Instant::now();
    let mut ended: BTreeMap<String, Record> = BTreeMap::new();
    let mut last_response = Instant::now();
    loop {
        let left: Vec<_> = ids.iter().filter(|id| !ended.contains_key(*id)).cloned().collect();
        match read(client, &left).await {
            Ok(records) => {
                last_response = Instant::now();
                for (id, record) in records.into_iter().filter(|(_, record)| is_terminal(record)) {
                    if print {
                        output::say(format!("{id} {}", summary(&record)));
                    }
                    ended.insert(id, record);
                }
            }
            Err(CommandError::Client(error)) if error.is_retryable() && last_response.elapsed() < RETRY_TIMEOUT => {
                output::report(&error);
            }
            Err(error) => return Err(error),
        }
        let have_all_ended = ids.iter().all(|id| ended.contains_key(id));
        if have_all_ended || timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            return Ok(ended);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the records of these submissions, from the table if its name is known, otherwise from the API.
async fn read(client: &Client, ids: &[String]) -> Result<Vec<(String, Record)>, CommandError> {
    let mut records = Vec::new();
    if client.has_table() {
        for record in client.records(ids).await? {
            records.push((text(&record, "submission_id"), record));
        }
        if let Some(id) = ids.iter().find(|id| !records.iter().any(|(known, _)| known == *id)) {
            return Err(CommandError::NotFound(id.clone()));
        }
        return Ok(records);
    }
    for id in ids {
        let record = client.record(id).await.map_err(|error: ClientError| {
            if error.is_not_found() { CommandError::NotFound(id.clone()) } else { error.into() }
        })?;
        records.push((id.clone(), record));
    }
    Ok(records)
}
