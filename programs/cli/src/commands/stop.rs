//! `ecs-bridge stop`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::client::find::BridgeOptions;
use crate::error::CommandError;
use crate::follow::until_ended;
use crate::ids::{Known, resolve};
use crate::output;
use crate::record::{is_terminal, text};

/// The limit of the API on ids per call.
const BATCH: usize = 100;

/// Stop submissions: queued submissions never launch, and tasks that run are stopped
#[derive(Args)]
#[command(after_help = "\
The exit code is 0 if each stop is recorded, and 1 if the bridge rejects one or a submission does not exist. The bridge also \
records a stop for an id that does not exist, and cancels a submission with this id if it arrives later. --tombstone asks for \
this, so the exit code is 0.")]
pub struct Stop {
    /// The ids of the submissions, or unambiguous beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The reason, which the bridge records
    #[arg(long, default_value = "stopped by ecs-bridge stop")]
    reason: String,
    /// Accept ids that do not exist yet, so that submissions with these ids never launch; the ids must be complete
    #[arg(long)]
    tombstone: bool,
    /// Wait until the submissions have ended
    #[arg(long)]
    wait: bool,
    /// Write the results as JSON Lines, and with --wait the final records
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

impl Stop {
    pub fn run(self) -> Result<ExitCode, CommandError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = self.bridge.find().await?;
            let known = resolve(&client, &self.ids, !self.tombstone).await?;
            let (mut failed, mut stopped) = (false, Vec::new());
            for known in known.chunks(BATCH) {
                let ids: Vec<_> = known.iter().map(|it| it.id.clone()).collect();
                let body = json!({"submission_ids": ids, "reason": self.reason});
                let answer = client.call("POST", "/v1/stops", Some(&body)).await?;
                let items = answer.get("submissions").and_then(Value::as_array).into_iter().flatten();
                for (Known { id, exists }, item) in known.iter().zip(items.filter_map(Value::as_object)) {
                    let error = item.get("error").and_then(Value::as_object);
                    failed |= error.is_some() || !(*exists || self.tombstone);
                    let state = text(item, "state");
                    if self.json {
                        output::say(json!(item));
                    }
                    match error {
                        Some(error) if !self.json => eprintln!("ecs-bridge: \"{id}\": {}", text(error, "message")),
                        Some(_) => {}
                        None if !exists => {
                            let line = format!(
                                "no such submission: \"{id}\"; the bridge cancels a submission with this id if it arrives later"
                            );
                            if self.tombstone && !self.json { output::say(line) } else { eprintln!("ecs-bridge: {line}") }
                        }
                        None => {
                            stopped.push(id.clone());
                            if !self.json {
                                output::say(match state.as_str() {
                                    "cancelled" => format!("{id} cancelled"),
                                    _ if is_terminal(item) => format!("{id} had already ended: {state}"),
                                    _ => format!("{id} stop requested; its state is {state}"),
                                });
                            }
                        }
                    }
                }
            }
            if self.wait && !stopped.is_empty() {
                let ended = until_ended(&client, &stopped, None, !self.json).await?;
                if self.json {
                    ended.values().for_each(|record| output::say(json!(record)));
                }
            }
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}
