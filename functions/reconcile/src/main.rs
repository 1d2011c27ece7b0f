//! The reconcile function: repairs records that missed an event, every minute and whenever another function queues
//! work.

mod handler;
mod launches;
mod partition;
mod pools;
mod timers;

use ecs_bridge_aws::{
    Bridge, Clients, Doorbells, Page,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::{Timestamp, config::Environment, record::QUEUE};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Deserialize;

use crate::handler::Reconcile;

/// The relevant part of an event. The payload of a scheduled event can have any content.
#[derive(Deserialize)]
struct Event {
    /// `true` if another function has just queued work.
    #[serde(default)]
    woken: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let pools = pools::Pools::read(&mut environment);
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let doorbells = Doorbells::new(&clients.config, &config.rules.deployment);
    let reconcile = Reconcile { bridge: Bridge::new(&clients, config).delivery(&clients), pools, doorbells };
    // The function's role can read the index but no single record outside it.
    warm_up(async { drop(reconcile.bridge.table.due(QUEUE, Timestamp::from_millis(0), 1, Page::default()).await) })
        .await;
    let handler = async |event: LambdaEvent<Event>| {
        let report = reconcile.run(event.context.deadline(), event.payload.woken).await;
        metrics.flush();
        // The error type is explicit because a boxed error would show its Rust type in dead-letter messages.
        report.map_err(|error| Diagnostic { error_type: "TableError".to_owned(), error_message: error.to_string() })
    };
    lambda_runtime::run(service_fn(handler)).await
}
