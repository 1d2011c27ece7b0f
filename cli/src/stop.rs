//! `ecs-bridge stop`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::bridge::Where;
use crate::output::{self, text};
use crate::show::ShowError;

/// The API's limit on ids in a call.
const BATCH: usize = 100;

/// Stop submissions: one that is queued is never launched, one that runs is stopped
#[derive(Args)]
pub struct Stop {
    /// The submissions' ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The reason, which is recorded
    #[arg(long, default_value = "stopped by ecs-bridge stop")]
    reason: String,
    /// Write the results as JSON, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: Where,
}

impl Stop {
    pub fn run(self) -> Result<ExitCode, ShowError> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let bridge = self.bridge.find().await?;
            let mut refused = false;
            for ids in self.ids.chunks(BATCH) {
                let body = json!({"submission_ids": ids, "reason": self.reason});
                let answer = bridge.call("POST", "/v1/stops", Some(&body)).await?;
                let items = answer.get("submissions").and_then(Value::as_array).into_iter().flatten();
                for (id, item) in ids.iter().zip(items.filter_map(Value::as_object)) {
                    let error = item.get("error").and_then(Value::as_object);
                    refused |= error.is_some();
                    match error {
                        _ if self.json => output::say(json!(item)),
                        None => output::say(format!("{id} {}", text(item, "state"))),
                        Some(error) => eprintln!("ecs-bridge: {id}: {}", text(error, "message")),
                    }
                }
            }
            Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}
