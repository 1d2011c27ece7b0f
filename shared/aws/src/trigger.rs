//! Waking reconcile when a submission was left queued, so that it does not wait for the next minute.
//!
//! A run of reconcile promises in the launch rate's row until when it reads the indexes again and again, so that however
//! many submissions wait, one run serves them, and no second is invoked for what the first is certain to find.

use std::time::Duration;

use aws_sdk_lambda::{Client, error::ProvideErrorMetadata, primitives::Blob, types::InvocationType};

use crate::{now, table::Table};

/// The event of a run that was woken.
const WOKEN: &str = r#"{"woken": true}"#;

/// How long the call may take. Whoever wakes is waited for, and the schedule comes anyway.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The reconcile function, if it is to be woken.
#[derive(Debug)]
pub struct Wake {
    client: Client,
    function: Option<String>,
}

impl Wake {
    /// The function of this name or ARN; without one, only its schedule runs reconcile.
    pub fn new(config: &aws_config::SdkConfig, function: Option<String>) -> Self {
        Self { client: Client::new(config), function }
    }

    /// Invokes it asynchronously, unless a run looks for work anyway; within a second or not at all.
    pub async fn wake(&self, table: &Table) {
        let Some(function) = &self.function else { return };
        match table.claim_wake(now()).await {
            Ok(true) => {}
            Ok(false) => return,
            // The schedule runs it within a minute.
            Err(error) => return tracing::warn!(%error, "reconcile was not invoked; it runs by its schedule"),
        }
        let call = self.client.invoke().function_name(function).invocation_type(InvocationType::Event);
        let call = call.payload(Blob::new(WOKEN));
        match tokio::time::timeout(TIMEOUT, call.send()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(code = error.code(), "reconcile was not invoked; it runs by its schedule"),
            Err(_) => tracing::warn!("reconcile was not invoked within a second; it runs by its schedule"),
        }
    }
}
