//! `ecs-bridge submit`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::submit_file::{self, FileError};
use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::client::find::BridgeOptions;
use crate::error::CommandError;
use crate::flags::{label, parse_time};
use crate::follow::{RETRY_TIMEOUT, until_ended};
use crate::output::{self, now};
use crate::record::{Record, is_terminal, summary, text};

/// The exit code of `submit --wait` if the command has none.
const NO_EXIT_CODE: u8 = 125;
/// The exit code of `submit --wait` if submitting or following failed.
const NOT_SUBMITTED: u8 = 126;

/// Submit a command, and follow it until it ends if --wait is given
#[derive(Args)]
#[command(after_help = "\
With --wait the exit code is that of the command. It is 125 if the command has no exit code, because the submission was \
rejected, expired, cancelled or lost, or failed without one. It is 126 if the command cannot be submitted or followed. With \
--file the exit code is 0 if all submissions are accepted, and with --wait if all succeed. Otherwise, it is 1. An interruption \
of --wait does not stop the submission: see `ecs-bridge show` and `ecs-bridge stop`.")]
pub struct Submit {
    /// The profile to launch the command with
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The id of the submission; a submission with the same id and command does not run again [default: a new UUID]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// A label of the submission; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// RunTask parameters that override the profile, if it allows them
    #[arg(long, value_name = "JSON", value_parser = object)]
    overrides: Option<Map<String, Value>>,
    /// Targets of the notification of its outcome: {"event_bus": NAME, "task_token": TOKEN}, or one of them
    #[arg(long, value_name = "JSON", value_parser = notify)]
    notify: Option<Map<String, Value>>,
    /// Do not launch the command later than this from now: a number of seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    launch_within: Option<Duration>,
    /// Priority from 0 to 999; smaller numbers are launched first [default: 500]
    #[arg(long, value_name = "N")]
    priority: Option<u16>,
    /// Follow the submission until it has ended
    #[arg(long)]
    wait: bool,
    /// Write the result as JSON, or with --wait the record after each change as JSON Lines
    #[arg(long)]
    json: bool,
    /// Submit each line of this file, a JSON object as in the API: {"command": [...], "profile": ...}; - means standard input.
    /// The flags apply to lines that do not set the same member. The id of a line without submission_id is derived from its
    /// content, so you can repeat the same command
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "command"])]
    file: Option<PathBuf>,
    /// The command and its arguments, after --
    #[arg(last = true, required_unless_present = "file", value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    bridge: BridgeOptions,
}

#[derive(Debug, Error)]
enum SubmitError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{message} ({code}); given: {given}")]
    Item { code: String, message: String, given: String },
    #[error("unexpected response: it contains no submission")]
    NoItem,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Wait(#[from] CommandError),
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

fn notify(text: &str) -> Result<Map<String, Value>, String> {
    const MEMBERS: [&str; 2] = ["event_bus", "task_token"];
    let notify = object(text)?;
    if notify.is_empty() || notify.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        return Err("must have the members \"event_bus\", \"task_token\", or both".into());
    }
    Ok(notify)
}

impl Submit {
    pub fn run(self) -> ExitCode {
        let failure = if self.wait { NOT_SUBMITTED } else { 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let code = match runtime {
            Ok(runtime) => runtime.block_on(self.submit()).unwrap_or_else(|error| {
                output::report(&error);
                failure
            }),
            Err(error) => {
                output::report(&error);
                failure
            }
        };
        ExitCode::from(code)
    }

    async fn submit(&self) -> Result<u8, SubmitError> {
        let began = Instant::now();
        let client = self.bridge.find().await?;
        if let Some(path) = &self.file {
            return self.submit_file(&client, path).await;
        }
        let id = self.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let body = json!({"submissions": [self.item(&id)]});
        let answer = client.call("POST", "/v1/submissions", Some(&body)).await?;
        let item = answer.pointer("/submissions/0").and_then(Value::as_object).ok_or(SubmitError::NoItem)?;
        if let Some(error) = item.get("error").and_then(Value::as_object) {
            let (code, message) = (text(error, "code"), text(error, "message"));
            let given = match (code.as_str(), &self.profile) {
                ("unknown_profile", Some(profile)) => format!("--profile \"{profile}\""),
                _ => format!("id \"{id}\""),
            };
            return Err(SubmitError::Item { code, message, given });
        }
        if !self.wait {
            if self.json {
                output::say(Value::Object(item.clone()));
            } else {
                output::say(format!("{id} {}", text(item, "state")));
            }
            return Ok(0);
        }
        if !self.json {
            output::say(&id);
        }
        let record = self.follow(&client, &id, began).await?;
        Ok(exit_code(&record))
    }

    async fn submit_file(&self, client: &Client, path: &Path) -> Result<u8, SubmitError> {
        let defaults: Record = match self.item("") {
            Value::Object(item) => {
                item.into_iter().filter(|(name, _)| name != "submission_id" && name != "command").collect()
            }
            _ => Record::new(),
        };
        let lines = submit_file::read(path, &defaults)?;
        let outcomes = submit_file::submit(client, &lines, self.json).await?;
        if !self.json {
            outcomes.rejected.iter().for_each(output::say);
            output::say(outcomes.text());
        }
        let mut is_well = outcomes.rejected.is_empty();
        if self.wait && is_well {
            let ids: Vec<_> = lines.into_iter().map(|line| line.id).collect();
            let ended = until_ended(client, &ids, None, !self.json).await?;
            is_well = ended.values().all(|record| record.get("state") == Some(&"succeeded".into()));
        }
        Ok(u8::from(!is_well))
    }

    fn item(&self, id: &str) -> Value {
        let mut item = json!({"submission_id": id, "command": self.command});
        let mut set = |name: &str, value: Value| item.as_object_mut().map(|item| item.insert(name.to_owned(), value));
        if let Some(profile) = &self.profile {
            set("profile", profile.clone().into());
        }
        if let Some(notify) = &self.notify {
            set("notify", Value::Object(notify.clone()));
        }
        if let Some(overrides) = &self.overrides {
            set("overrides", Value::Object(overrides.clone()));
        }
        if !self.label.is_empty() {
            set("labels", self.label.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect());
        }
        if let Some(priority) = self.priority {
            set("priority", priority.into());
        }
        if let Some(within) = self.launch_within {
            let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
            set("launch_deadline", now().saturating_add(within).into());
        }
        item
    }

    /// Writes each change until the submission has ended, and returns its last record.
    async fn follow(&self, client: &Client, id: &str, began: Instant) -> Result<Record, SubmitError> {
        let mut written = String::new();
        let mut answered = Instant::now();
        loop {
            let record = match client.record(id).await {
                Ok(record) => record,
                Err(error) if error.is_retryable() && answered.elapsed() < RETRY_TIMEOUT => {
                    output::report(&error);
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            answered = Instant::now();
            let line = summary(&record);
            if line != written {
                if self.json {
                    output::say(Value::Object(record.clone()));
                } else {
                    output::say(format!("{:>7.1}s  {line}", began.elapsed().as_secs_f64()));
                }
                written = line;
            }
            if is_terminal(&record) {
                return Ok(record);
            }
            // The first pauses are short, because some commands end at once.
            let pause = (began.elapsed() / 20).clamp(Duration::from_millis(100), Duration::from_secs(2));
            tokio::time::sleep(pause).await;
        }
    }
}

/// Returns the exit code of the command, as a process can return it.
fn exit_code(record: &Record) -> u8 {
    let Some(code) = record.get("exit_code").and_then(Value::as_i64) else { return NO_EXIT_CODE };
    // A process returns eight bits. An exit code other than 0 must not become 0.
    match u8::try_from(code & 0xff).unwrap_or(1) {
        0 if code != 0 => 1,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Value) -> Record {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn exit_code_is_from_command_or_documented() {
        for (fields, code) in [
            (json!({"exit_code": 0}), 0),
            (json!({"exit_code": 137}), 137),
            (json!({"exit_code": 256}), 1),
            (json!({"exit_code": -1}), 255),
            (json!({"state": "lost"}), NO_EXIT_CODE),
        ] {
            assert_eq!(exit_code(&record(fields.clone())), code, "{fields}");
        }
    }
}
