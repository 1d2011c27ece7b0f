//! Invokes reconcile when a submission was left queued, so that the submission does not wait for the next minute.
//!
//! A run of reconcile writes into the launch rate's row until when it rereads the indexes. One run thus serves any
//! number of waiting submissions, and no second run is invoked for work that the first will find.

use std::time::Duration;

use aws_sdk_lambda::{Client, error::ProvideErrorMetadata, primitives::Blob, types::InvocationType};

use crate::{now, table::Table};

/// The event of a woken run.
const WOKEN: &str = r#"{"woken": true}"#;

/// The timeout of the call. The caller waits for it, and the schedule is a fallback.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The reconcile function, if it can be invoked.
#[derive(Debug)]
pub struct Wake {
    client: Client,
    function: Option<String>,
}

impl Wake {
    /// Sets the function by name or ARN. Without one, only its schedule runs reconcile.
    pub fn new(config: &aws_config::SdkConfig, function: Option<String>) -> Self {
        Self { client: Client::new(config), function }
    }

    /// Invokes reconcile asynchronously, unless a run is already checking for work. Gives up after one second.
    pub async fn wake(&self, table: &Table) {
        let Some(function) = &self.function else { return };
        match table.claim_wake(now()).await {
            Ok(true) => {}
            Ok(false) => return,
            // The schedule runs reconcile within a minute.
            Err(error) => return tracing::warn!(%error, "failed to invoke reconcile; will run on schedule"),
        }
        let call = self.client.invoke().function_name(function).invocation_type(InvocationType::Event);
        let call = call.payload(Blob::new(WOKEN));
        match tokio::time::timeout(TIMEOUT, call.send()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(code = error.code(), "failed to invoke reconcile; will run on schedule"),
            Err(_) => tracing::warn!("timed out invoking reconcile; will run on schedule"),
        }
    }
}
