//! The reconcile function: whatever the events did not tell, every minute and when submit left something queued.

mod handler;

use ecs_bridge_aws::{Bridge, Clients, eyes::Metrics};
use ecs_bridge_core::config::Environment;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::de::IgnoredAny;

use crate::handler::Reconcile;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let reconcile = Reconcile { bridge: Bridge::new(&Clients::from_environment().await, config) };
    let handler = async |event: LambdaEvent<IgnoredAny>| {
        let report = reconcile.run(event.context.deadline()).await;
        metrics.flush();
        report.map_err(lambda_runtime::Error::from)
    };
    lambda_runtime::run(service_fn(handler)).await
}
