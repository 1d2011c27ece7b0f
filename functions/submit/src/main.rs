//! The submit function: the HTTP API, on a Lambda function URL.

mod handler;
mod health;
mod http;
mod stops;
mod submissions;

use std::error::Error;

use aws_lambda_events::lambda_function_urls::LambdaFunctionUrlRequest;
use ecs_bridge_aws::{
    Bridge, Clients, Wake,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::{
    config::Environment,
    profile::{Clusters, Profiles},
};
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
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let app = App {
        wake: Wake::new(&clients.config, reconcile),
        bridge: Bridge::new(&clients, config),
        profiles: profiles?,
        clusters,
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

/// Reads the profiles from `ECS_BRIDGE_PROFILES`, or from the file that `ECS_BRIDGE_PROFILES_FILE` names.
fn read_profiles<F>(
    environment: &mut Environment<F>,
    clusters: &Clusters,
) -> Result<Profiles, Box<dyn Error + Send + Sync>>
where
    F: Fn(&str) -> Option<String>,
{
    let text = match (environment.optional("ECS_BRIDGE_PROFILES"), environment.optional("ECS_BRIDGE_PROFILES_FILE")) {
        (Some(text), None) => text,
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                environment.note(format!("ECS_BRIDGE_PROFILES_FILE: {file}: {error}"));
                return Err(error.into());
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            let problem = "either ECS_BRIDGE_PROFILES or ECS_BRIDGE_PROFILES_FILE must be set";
            environment.note(problem);
            return Err(problem.into());
        }
    };
    Profiles::parse(&text, clusters).map_err(|problems| {
        problems.iter().for_each(|problem| environment.note(format!("profiles: {problem}")));
        problems.join("; ").into()
    })
}
