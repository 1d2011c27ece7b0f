//! `ecs-bridge submit --file`: many submissions, from the lines of a file.
//!
//! All lines are parsed before the first is submitted. The id of a line without one is derived from its content. So the same
//! command can be repeated after an interruption, and runs nothing twice.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::output;
use crate::record::Record;

/// The limits of a call: items, and bytes with a margin.
const BATCH: (usize, usize) = (100, 3_500_000);

/// The number of tries for an item that cannot be recorded.
const TRIES: u32 = 8;

/// The cause of a file that cannot be submitted.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read \"{path}\"")]
    Read {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file has no lines.
    #[error(
        "nothing was submitted: {0} contains no submissions; write one JSON object per line, such as {{\"command\": [\"echo\", \"hello\"]}}"
    )]
    Empty(String),
    /// Some lines are invalid. Nothing was submitted.
    #[error("nothing was submitted: {}", .0.join("; "))]
    Lines(Vec<String>),
}

/// A submission of the file.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line number, from 1.
    number: usize,
    /// The id of the submission.
    pub id: String,
    item: Record,
    bytes: usize,
}

/// The outcomes of the lines.
#[derive(Debug, Default)]
pub struct Summary {
    /// The number of accepted lines by state.
    states: BTreeMap<String, usize>,
    /// The rejected lines, with their messages.
    pub rejected: Vec<String>,
}

impl Summary {
    /// Returns the summary on one line.
    pub fn text(&self) -> String {
        let states: Vec<_> = self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        format!(
            "{} accepted ({}), {} refused",
            self.states.values().sum::<usize>(),
            states.join(", "),
            self.rejected.len()
        )
    }
}

/// Reads the lines of a file, or of standard input for `-`. `defaults` apply to members that a line does not set.
pub fn read(path: &Path, defaults: &Record) -> Result<Vec<Line>, FileError> {
    let failed = |source| FileError::Read { path: path.display().to_string(), source };
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    let (mut lines, mut problems, mut seen) = (Vec::new(), Vec::new(), HashMap::<String, usize>::new());
    for (index, text) in BufReader::new(input).lines().enumerate() {
        let (number, text) = (index + 1, text.map_err(failed)?);
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str::<Record>(&text) {
            Ok(item) if item.get("command").is_some_and(Value::is_array) => {
                let mut item: Record = defaults.clone().into_iter().chain(item).collect();
                let nth = seen.entry(text.clone()).or_default();
                *nth += 1;
                let derived = || Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{text}#{nth}").as_bytes()).to_string();
                let id = item.get("submission_id").and_then(Value::as_str).map_or_else(derived, str::to_owned);
                item.insert("submission_id".to_owned(), id.clone().into());
                let bytes = json!(item).to_string().len() + 1;
                lines.push(Line { number, id, item, bytes });
            }
            Ok(_) => problems.push(format!("line {number}: command is required: a list of strings")),
            Err(error) => {
                problems.push(format!("line {number}: {error}; a line is {{\"command\": [\"echo\", \"hello\"]}}"))
            }
        }
    }
    if lines.is_empty() && problems.is_empty() {
        let path = path.display().to_string();
        return Err(FileError::Empty(if path == "-" { "standard input".into() } else { format!("\"{path}\"") }));
    }
    if problems.is_empty() { Ok(lines) } else { Err(FileError::Lines(problems)) }
}

/// Submits the lines, up to 100 per call. Lines that are `unavailable` are sent again.
pub async fn submit(client: &Client, lines: &[Line], as_json: bool) -> Result<Summary, ClientError> {
    let shown = std::io::stderr().is_terminal() && !as_json;
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}, {per_sec}, {eta} left").ok();
    let bar = ProgressBar::with_draw_target(Some(lines.len() as u64), target);
    let bar = style.map_or_else(|| bar.clone(), |style| bar.clone().with_style(style));
    let mut summary = Summary::default();
    for batch in batches(lines) {
        let mut left: Vec<&Line> = batch.iter().collect();
        for tries in 1.. {
            let items: Vec<_> = left.iter().map(|line| &line.item).collect();
            let answer = match client.call("POST", "/v1/submissions", Some(&json!({"submissions": items}))).await {
                Ok(answer) => answer,
                Err(error) if error.is_retryable() && tries < TRIES => {
                    bar.suspend(|| output::report(&error));
                    pause(tries).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let answers = answer.get("submissions").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut again = Vec::new();
            for (line, answer) in left.iter().zip(&answers) {
                let text = |at: &str| answer.pointer(at).and_then(Value::as_str).unwrap_or_default();
                match text("/error/code") {
                    "unavailable" if tries < TRIES => {
                        again.push(*line);
                        continue;
                    }
                    "" => *summary.states.entry(text("/state").to_owned()).or_default() += 1,
                    code => summary.rejected.push(format!(
                        "line {} ({}): {} ({code})",
                        line.number,
                        line.id,
                        text("/error/message")
                    )),
                }
                if as_json {
                    output::say(answer);
                }
                bar.inc(1);
            }
            if again.is_empty() {
                break;
            }
            left = again;
            pause(tries).await;
        }
    }
    bar.finish_and_clear();
    Ok(summary)
}

/// Waits for half a second, and twice as long after each try.
async fn pause(tries: u32) {
    tokio::time::sleep(Duration::from_millis(250) * 2_u32.pow(tries.min(6))).await;
}

fn batches(lines: &[Line]) -> Vec<&[Line]> {
    let (most, bytes) = BATCH;
    let (mut batches, mut rest) = (Vec::new(), lines);
    while !rest.is_empty() {
        let mut size = 0;
        let fits = rest.iter().take(most).take_while(|line| {
            size += line.bytes;
            size <= bytes
        });
        let (batch, after) = rest.split_at(fits.count().max(1));
        batches.push(batch);
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> Line {
        Line { number: 1, id: "a".to_owned(), item: Record::new(), bytes }
    }

    #[test]
    fn batch_stays_within_api_limits() {
        let sizes = |lines: &[Line]| batches(lines).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&vec![line(10); 250]), [100, 100, 50]);
        assert_eq!(sizes(&vec![line(2_000_000); 3]), [1, 1, 1]);
        assert_eq!(sizes(&[line(9_000_000), line(1)]), [1, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }
}
