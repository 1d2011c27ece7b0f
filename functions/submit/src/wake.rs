//! Waking reconcile when something was left queued, so that it need not wait for the next minute.

use aws_sdk_lambda::{Client, error::ProvideErrorMetadata, types::InvocationType};

/// The reconcile function.
#[derive(Debug)]
pub struct Wake {
    client: Client,
    function: String,
}

impl Wake {
    /// The function of this name or ARN.
    pub fn new(config: &aws_config::SdkConfig, function: String) -> Self {
        Self { client: Client::new(config), function }
    }

    /// Invokes it asynchronously. Where that fails, the schedule does.
    pub async fn wake(&self) {
        let call = self.client.invoke().function_name(&self.function).invocation_type(InvocationType::Event);
        if let Err(error) = call.send().await {
            tracing::warn!(code = error.code(), "reconcile was not woken; it comes by its schedule");
        }
    }
}
