//! The submit function: the HTTP API, on a Lambda function URL or by direct invocation.

mod app;
mod errors;
mod follow_up;
mod health;
mod idle_capacity;
mod invocation;
mod launch_tokens;
mod pools;
mod routes;
mod show;
mod stops;
mod submissions;

use aws_lambda_events::lambda_function_urls::{LambdaFunctionUrlRequest, LambdaFunctionUrlResponse};
use ecs_bridge_aws::{
    Bridge, Clients, Doorbells, Wake, read_profiles,
    telemetry::{self, Metrics},
    warm_up,
};
use ecs_bridge_core::config::Environment;
use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use crate::app::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::log();
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let clusters = environment.clusters();
    let reconcile = environment.optional("ECS_BRIDGE_RECONCILE_FUNCTION");
    let profiles = read_profiles(&mut environment, &clusters);
    let runner_api = environment.runner_api();
    let listeners = environment.listeners();
    if let Ok(profiles) = &profiles {
        profiles.unreachable_event_buses(&listeners).into_iter().for_each(|problem| environment.note(problem));
    }
    let config = environment.finish(config)?;

    let metrics = Metrics::new(&config.rules.deployment);
    let clients = Clients::from_environment();
    let app = App {
        wake: Wake::new(&clients.config, reconcile),
        doorbells: Doorbells::new(&clients.config, &config.rules.deployment),
        bridge: Bridge::new(&clients, config),
        profiles: profiles?,
        clusters,
        listeners,
        runner_api,
        idle_capacity: Default::default(),
    };
    warm_up(async {
        let cluster = app.clusters.default_cluster();
        let (table, ecs) = (app.bridge.table.look_at_launch_tokens(), app.bridge.ecs.is_active(cluster));
        // Only the connections matter, not the responses.
        let _ = tokio::join!(table, ecs);
    })
    .await;
    let handler = async |event: LambdaEvent<Box<RawValue>>| {
        let (payload, context) = (&event.payload, &event.context);
        let answer = match url_request(payload.get()) {
            Some(request) => Ok(Answer::Url(app.handle(request, &context.request_id, context.deadline()).await)),
            None => app.invoke(payload, &context.request_id, context.deadline()).await.map(Answer::Direct),
        };
        metrics.flush();
        answer
    };
    lambda_runtime::run(service_fn(handler)).await
}

/// A response, ready to serialize.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Url(LambdaFunctionUrlResponse),
    Direct(Value),
}

/// Parses the request of a function URL. Returns none for a direct invocation, which has no `requestContext`.
fn url_request(payload: &str) -> Option<LambdaFunctionUrlRequest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        request_context: Option<IgnoredAny>,
    }
    let probe: Probe = serde_json::from_str(payload).ok()?;
    probe.request_context.and_then(|_| serde_json::from_str(payload).ok())
}
