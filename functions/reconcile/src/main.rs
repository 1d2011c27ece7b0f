//! The reconcile function: repairs what no event reported, every minute and when another function left something queued.

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

/// The part of an event that matters: a schedule sends what it likes.
#[derive(Deserialize)]
struct Event {
    /// Whether another function left something to do just now.
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
    // Its role reads the index, and no record by itself.
    warm_up(async { drop(reconcile.bridge.table.due(QUEUE, Timestamp::from_millis(0), 1, Page::default()).await) })
        .await;
    let handler = async |event: LambdaEvent<Event>| {
        let report = reconcile.run(event.context.deadline(), event.payload.woken).await;
        metrics.flush();
        // Named, as a boxed error would be called by its type in dead letters.
        report.map_err(|error| Diagnostic { error_type: "TableError".to_owned(), error_message: error.to_string() })
    };
    lambda_runtime::run(service_fn(handler)).await
}
