//! The task-state function: applies the ECS Task State Change events from EventBridge to the records.

mod event;

use ecs_bridge_aws::{
    Bridge, Clients, Wake,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::config::Environment;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let reconcile = environment.optional("ECS_BRIDGE_RECONCILE_FUNCTION");
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let wake = Wake::new(&clients.config, reconcile);
    let bridge = Bridge::new(&clients, config).delivery(&clients);
    warm_up(async { bridge.table.look_at_launch_tokens().await.unwrap_or_default() }).await;
    let handler = async |event: LambdaEvent<Box<RawValue>>| {
        let result = event::handle(&bridge, &wake, event.payload.get()).await;
        metrics.flush();
        // The error type is explicit because a boxed error would show its Rust type in dead-letter messages.
        result.map_err(|error| Diagnostic { error_type: "BridgeError".to_owned(), error_message: error.to_string() })
    };
    lambda_runtime::run(service_fn(handler)).await
}
