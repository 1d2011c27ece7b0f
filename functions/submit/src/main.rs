//! The submit function: the HTTP API, on a Lambda function URL.

mod handler;
mod health;
mod stops;
mod submissions;

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlRequest;
use ecs_bridge_aws::{
    Bridge, Clients, Wake, read_profiles,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::config::Environment;
use lambda_runtime::{LambdaEvent, service_fn};

use crate::handler::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let clusters = environment.clusters();
    let reconcile = environment.optional("ECS_BRIDGE_RECONCILE_FUNCTION");
    let profiles = read_profiles(&mut environment, &clusters);
    let work = environment.work();
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let app = App {
        wake: Wake::new(&clients.config, reconcile),
        bridge: Bridge::new(&clients, config),
        profiles: profiles?,
        clusters,
        work,
        spares: Default::default(),
    };
    warm_up(async {
        let cluster = app.clusters.default_cluster();
        let (table, ecs) = (app.bridge.table.look_at_launch_tokens(), app.bridge.ecs.is_active(cluster));
        // Only their connections matter, not their answers.
        let _ = tokio::join!(table, ecs);
    })
    .await;
    let handler = async |event: LambdaEvent<LambdaFunctionUrlRequest>| {
        let answer = app.handle(event.payload, &event.context.request_id, event.context.deadline()).await;
        metrics.flush();
        Ok::<_, lambda_runtime::Error>(answer)
    };
    lambda_runtime::run(service_fn(handler)).await
}
