//! The reconcile function: repairs records that missed an event, every minute and whenever another function queues
//! work.

mod app;
mod event;
mod launches;
mod partition;
mod pools;
mod report;
mod run;
mod timers;

use ecs_bridge_aws::{
    Bridge, Clients, Doorbells, Page,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::{Timestamp, config::Environment, record::QUEUE};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};

use crate::{
    app::{App, Pools},
    event::Event,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let pools = Pools::read(&mut environment);
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let doorbells = Doorbells::new(&clients.config, &config.rules.deployment);
    let app = App { bridge: Bridge::new(&clients, config).delivery(&clients), pools, doorbells };
    // The function's role can read the index but no single record outside it.
    warm_up(async { drop(app.bridge.table.due(QUEUE, Timestamp::from_millis(0), 1, Page::default()).await) }).await;
    let handler = async |event: LambdaEvent<Event>| {
        let report = app.run(event.context.deadline(), event.payload.woken).await;
        metrics.flush();
        // The error type is explicit because a boxed error would show its Rust type in dead-letter messages.
        report.map_err(|error| Diagnostic { error_type: "TableError".to_owned(), error_message: error.to_string() })
    };
    lambda_runtime::run(service_fn(handler)).await
}
