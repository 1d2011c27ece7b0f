//! The SDK clients, built once at function start.

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

/// DynamoDB responds in milliseconds, and this bounds the cost of a stale connection.
const TABLE_ATTEMPT: Duration = Duration::from_secs(3);

/// RunTask responds within a few seconds or not at all.
const ECS_ATTEMPT: Duration = Duration::from_secs(15);

const CONNECT: Duration = Duration::from_secs(2);

/// The maximum idle time of a reused connection. Lambda freezes the process between invocations, and the peer may
/// close the connection meanwhile. A RunTask request on such a connection gets neither a result nor an error.
const IDLE: Duration = Duration::from_secs(10);

/// The maximum duration of connection setup. Lambda limits initialization to 10 s, and an invocation may be waiting.
const WARM_UP: Duration = Duration::from_secs(1);

/// Runs `calls`, which open the connections for the first invocation, and waits for them.
///
/// Lambda gives a process a full CPU during initialization, and about a fourteenth of one later at 128 MB. Loading
/// certificates and TLS handshakes take that much longer later. Failures are ignored because the first invocation
/// meets and reports them.
pub async fn warm_up(calls: impl Future<Output = ()>) {
    if tokio::time::timeout(WARM_UP, calls).await.is_err() {
        tracing::debug!("connection warm-up timed out");
    }
}

/// The clients of a function.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The configuration from which the clients were built.
    pub config: SdkConfig,
    /// The DynamoDB client, with the SDK's retries.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The ECS client, with the SDK's retries. RunTask is called without them.
    pub ecs: aws_sdk_ecs::Client,
}

impl Clients {
    /// Creates clients from Lambda's environment: Region, credentials and `AWS_ENDPOINT_URL_…`.
    ///
    /// The SDK's default provider chain is not used. It would search for files and link the STS and instance metadata
    /// clients, which lengthens each cold start.
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

    /// Creates clients with this configuration and the bridge's own timeouts and HTTP client.
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

/// Returns one connector for all clients, so that the trusted certificates are read once. The SDK's own HTTP client
/// reads them for each service's client, and again at its first call.
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

/// Settings of one service, such as `AWS_ENDPOINT_URL_DYNAMODB`, take precedence over those for all services, such as
/// `AWS_ENDPOINT_URL`.
#[derive(Debug)]
struct ServiceVariables;

impl LoadServiceConfig for ServiceVariables {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        let service = key.service_id().to_ascii_uppercase().replace(' ', "_");
        variable(&format!("{}_{service}", key.env())).or_else(|| variable(key.env()))
    }
}
