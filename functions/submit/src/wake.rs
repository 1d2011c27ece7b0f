//! Waking reconcile when something was left queued, so that it need not wait for the next minute.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use aws_sdk_lambda::{Client, error::ProvideErrorMetadata, types::InvocationType};

/// How often a process wakes reconcile at most: a run goes on as long as it finds work.
const APART: Duration = Duration::from_secs(5);

/// The reconcile function.
#[derive(Debug)]
pub struct Wake {
    client: Client,
    function: String,
    last: Mutex<Option<Instant>>,
}

impl Wake {
    /// The function of this name or ARN.
    pub fn new(config: &aws_config::SdkConfig, function: String) -> Self {
        Self { client: Client::new(config), function, last: Mutex::default() }
    }

    /// Invokes it asynchronously. Where that fails, the schedule does.
    pub async fn wake(&self) {
        if !self.is_time() {
            return;
        }
        let call = self.client.invoke().function_name(&self.function).invocation_type(InvocationType::Event);
        if let Err(error) = call.send().await {
            tracing::warn!(code = error.code(), "reconcile was not woken; it comes by its schedule");
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
