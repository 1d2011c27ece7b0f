//! Waking reconcile when a submission was left queued, so that it does not wait for the next minute.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use aws_sdk_lambda::{Client, error::ProvideErrorMetadata, primitives::Blob, types::InvocationType};

/// How often a process wakes reconcile at most: a run goes on as long as it finds work, and one that was woken looks at the
/// pools again after as long.
const APART: Duration = Duration::from_secs(2);

/// The event of a run that was woken.
const WOKEN: &str = r#"{"woken": true}"#;

/// How long the call may take. Whoever wakes is waited for, and the schedule comes anyway.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The reconcile function, if it is to be woken.
#[derive(Debug)]
pub struct Wake {
    client: Client,
    function: Option<String>,
    last: Mutex<Option<Instant>>,
}

impl Wake {
    /// The function of this name or ARN; without one, only its schedule runs reconcile.
    pub fn new(config: &aws_config::SdkConfig, function: Option<String>) -> Self {
        Self { client: Client::new(config), function, last: Mutex::default() }
    }

    /// Invokes it asynchronously, within a second or not at all.
    pub async fn wake(&self) {
        let Some(function) = self.function.as_ref().filter(|_| self.is_time()) else { return };
        let call = self.client.invoke().function_name(function).invocation_type(InvocationType::Event);
        let call = call.payload(Blob::new(WOKEN));
        match tokio::time::timeout(TIMEOUT, call.send()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(code = error.code(), "reconcile was not woken; it runs by its schedule"),
            Err(_) => tracing::warn!("reconcile was not woken within a second; it runs by its schedule"),
        }
    }

    fn is_time(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_time = last.is_none_or(|last| last.elapsed() >= APART);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }
}
