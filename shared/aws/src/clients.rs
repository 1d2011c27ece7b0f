//! The SDK's clients, built once, as the functions start.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_dynamodb::config::{SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector, http_client_fn};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// DynamoDB answers in milliseconds; a stale connection must not cost more than this.
const TABLE_ATTEMPT: Duration = Duration::from_secs(3);

/// RunTask answers within a few seconds, or not at all.
const ECS_ATTEMPT: Duration = Duration::from_secs(15);

const CONNECT: Duration = Duration::from_secs(2);

/// How long a connection is kept for another request. Lambda freezes the process between invocations, and a peer may
/// have closed the connection when it resumes: a RunTask that is sent on it is neither answered nor refused.
const IDLE: Duration = Duration::from_secs(10);

/// How long a start may take for connections: Lambda allows 10 s, and an invocation may be waiting.
const WARM_UP: Duration = Duration::from_secs(1);

/// Lets `calls` open the connections that the first invocation needs, and waits for it.
///
/// While it initialises, Lambda gives a process a whole CPU, and later the fourteenth part of one where it has 128 MB:
/// reading certificates and shaking hands then takes so much longer. Nothing hangs on it: what fails here, the
/// invocation meets again, and can report.
pub async fn warm_up(calls: impl Future<Output = ()>) {
    if tokio::time::timeout(WARM_UP, calls).await.is_err() {
        tracing::debug!("no connections in time");
    }
}

/// The clients of a function.
#[derive(Clone, Debug)]
pub struct Clients {
    /// What they were built from.
    pub config: SdkConfig,
    /// DynamoDB, with the SDK's retries.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// ECS, with the SDK's retries; RunTask is called without them.
    pub ecs: aws_sdk_ecs::Client,
}

impl Clients {
    /// Clients by what Lambda puts into the environment: region and credentials; and `AWS_ENDPOINT_URL_…`.
    ///
    /// Without the SDK's chain of providers, which would look for files, and link in STS and the metadata of
    /// instances: a part of what Lambda loads, and of each cold start.
    pub fn from_environment() -> Self {
        let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50));
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
        let is_set = |name| variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.map(Region::new))
            .credentials_provider(credentials)
            .retry_config(retries)
            .use_fips(is_set("AWS_USE_FIPS_ENDPOINT"))
            .use_dual_stack(is_set("AWS_USE_DUALSTACK_ENDPOINT"))
            .service_config(ServiceVariables)
            .build();
        Self::new(&config)
    }

    /// Clients with this configuration, but for their timeouts and the way to HTTP.
    pub fn new(config: &SdkConfig) -> Self {
        let config = config.to_builder().http_client(http_client()).build();
        let within = |attempt| TimeoutConfig::builder().operation_attempt_timeout(attempt).build();
        let dynamodb = aws_sdk_dynamodb::config::Builder::from(&config).timeout_config(within(TABLE_ATTEMPT));
        let ecs = aws_sdk_ecs::config::Builder::from(&config).timeout_config(within(ECS_ATTEMPT));
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            ecs: aws_sdk_ecs::Client::from_conf(ecs.build()),
            config,
        }
    }
}

/// One connector for all clients, so that the certificates that it trusts are read once. The SDK's own HTTP client reads
/// them as each service's client is built, and again as that makes its first call.
fn http_client() -> SharedHttpClient {
    let connector = Connector::builder()
        .connector_settings(HttpConnectorSettings::builder().connect_timeout(CONNECT).build())
        .sleep_impl(TokioSleep::new())
        .pool_idle_timeout(IDLE)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Settings of one service, such as `AWS_ENDPOINT_URL_DYNAMODB`, before those for all, such as `AWS_ENDPOINT_URL`.
#[derive(Debug)]
struct ServiceVariables;

impl LoadServiceConfig for ServiceVariables {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_ascii_uppercase().replace(' ', "_");
        variable(&format!("{}_{service}", key.env())).or_else(|| variable(key.env()))
    }
}
