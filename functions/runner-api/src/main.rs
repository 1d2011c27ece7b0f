//! The runner API: dispatches commands to the runners of a pool and records their exit codes.

mod app;
mod caller;
mod dispatch;
mod event;
mod poll;
mod responses;
mod takes;

use ecs_bridge_aws::{
    Bridge, Clients, Wake,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::config::Environment;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;

use crate::{app::App, caller::Roles};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let roles = Roles::new(&environment.required("ECS_BRIDGE_TASK_ROLES"));
    let takes_invocations = environment.flag("ECS_BRIDGE_DIRECT_INVOCATION");
    let reconcile = environment.optional("ECS_BRIDGE_RECONCILE_FUNCTION");
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let wake = Wake::new(&clients.config, reconcile);
    let takes = Default::default();
    let app = App { bridge: Bridge::new(&clients, config), roles, wake, takes, takes_invocations };
    warm_up(async { app.bridge.table.look_at_launch_tokens().await.unwrap_or_default() }).await;
    let handler = async |event: LambdaEvent<Box<RawValue>>| {
        let answer = app.handle(event.payload.get(), &event.context.request_id).await;
        metrics.flush();
        Ok::<_, lambda_runtime::Error>(answer)
    };
    lambda_runtime::run(service_fn(handler)).await
}
