//! `ecs-bridge wait`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::client::find::BridgeOptions;
use crate::error::CommandError;
use crate::flags::parse_time;
use crate::follow::until_ended;
use crate::ids::resolve;
use crate::output;

/// The exit code if `--timeout` elapsed first, as that of timeout(1).
const TIMED_OUT: u8 = 124;
/// The exit code if a submission could not be followed.
const NOT_FOLLOWED: u8 = 126;

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
    bridge: BridgeOptions,
}

impl Wait {
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let code = runtime.map_err(CommandError::from).and_then(|runtime| runtime.block_on(self.wait()));
        ExitCode::from(code.unwrap_or_else(|error| {
            output::report(&error);
            NOT_FOLLOWED
        }))
    }

    async fn wait(&self) -> Result<u8, CommandError> {
        let client = self.bridge.find().await?;
        let known = resolve(&client, &self.ids, true).await?;
        if let Some(unknown) = known.iter().find(|known| !known.exists) {
            return Err(CommandError::NotFound(unknown.id.clone()));
        }
        let ids: Vec<_> = known.into_iter().map(|known| known.id).collect();
        let ended = until_ended(&client, &ids, self.timeout, !self.json).await?;
        if self.json {
            output::say(json!(ended));
        }
        let all_succeeded = ended.values().all(|record| record.get("state") == Some(&"succeeded".into()));
        let have_all_ended = ids.iter().all(|id| ended.contains_key(id));
        Ok(if have_all_ended { u8::from(!all_succeeded) } else { TIMED_OUT })
    }
}
