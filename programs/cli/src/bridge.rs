//! A deployed or local bridge: how to find it, its HTTP API, and its table. What else belongs to it is in `account.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, IndexStatus, KeysAndAttributes};
use aws_sdk_lambda::primitives::Blob;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use clap::Args;
use ecs_bridge_local::{default_ready_file, is_starting};
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::pools::Row;

/// The timeout of a call: that of the function, and some seconds more.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// DynamoDB's limit on the keys of a BatchGetItem.
const BATCH: usize = 100;

/// How to find the bridge. Values may also come from the file of a local stack, or from the environment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Bridge")]
pub struct Where {
    /// Name of the deployed CloudFormation stack, from whose outputs the other values are read [env: ECS_BRIDGE_STACK]
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// Profile of the AWS configuration, including SSO and assumed roles [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME")]
    aws_profile: Option<String>,
    /// File that `ecs-bridge local` writes; the command waits for a local stack that is starting. Without --stack, --url,
    /// --function and --table, the default path of `ecs-bridge local` is used if the file exists [env: ECS_BRIDGE_LOCAL]
    #[arg(long, value_name = "FILE")]
    local: Option<PathBuf>,
    /// URL of the submit function [env: ECS_BRIDGE_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Name or ARN of the submit function, to invoke it directly instead of through its URL [env: ECS_BRIDGE_FUNCTION]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Name of the table [env: ECS_BRIDGE_TABLE]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Name of the deployment [env: ECS_BRIDGE_DEPLOYMENT]
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// Endpoint of DynamoDB, if it differs from the AWS endpoint [env: AWS_ENDPOINT_URL_DYNAMODB]
    #[arg(long, value_name = "URL")]
    dynamodb_url: Option<String>,
    /// AWS Region [default: the Region in the URL, otherwise that of the AWS configuration]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ReadyFile {
    submit_url: Option<String>,
    submit_function: Option<String>,
    lambda_url: Option<String>,
    ecs_url: Option<String>,
    dynamodb_url: Option<String>,
    table: Option<String>,
    deployment: Option<String>,
    region: Option<String>,
    log_dir: Option<PathBuf>,
}

/// A client of a bridge.
#[derive(Debug)]
pub struct Bridge {
    url: Option<String>,
    /// Invoked instead of its URL.
    function: Option<(String, aws_sdk_lambda::Client)>,
    table: Option<String>,
    deployment: Option<String>,
    config: SdkConfig,
    /// Of DynamoDB, if not that of AWS.
    dynamodb_url: Option<String>,
    connector: Connector,
    /// The outputs of its stack, where it was found by that.
    pub(crate) outputs: BTreeMap<String, String>,
    /// The local stack that it is.
    pub(crate) local: Option<LocalStack>,
}

/// What of a local stack is not at AWS.
#[derive(Clone, Debug)]
pub struct LocalStack {
    /// Lambda's endpoint.
    pub lambda_url: String,
    /// ECS's endpoint.
    pub ecs_url: String,
    /// Where the output of its containers is, if it is kept.
    pub log_dir: Option<PathBuf>,
}

/// The credentials of the user of a local stack.
const LOCAL_KEY: &str = "local";

/// Why a call to the bridge failed.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// A required value is not set.
    #[error(
        "cannot find {what}: pass --stack NAME or {flag}, or set {variable}; for a local stack, start `ecs-bridge local` or pass \
         --local FILE"
    )]
    Unknown {
        /// The value.
        what: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its environment variable.
        variable: &'static str,
    },
    /// The ready file cannot be read.
    #[error("cannot read the file of the local stack: \"{}\"{}", path.display(), if source.kind() == std::io::ErrorKind::NotFound { "; is `ecs-bridge local` running?" } else { "" })]
    ReadyFile {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The stack cannot be read.
    #[error("cannot read the outputs of the stack \"{0}\"")]
    Stack(String, #[source] Boxed),
    /// Nothing here can read a stack.
    #[cfg(not(feature = "account"))]
    #[error(
        "cannot read the stack \"{0}\": this program was built without the feature `account`; build it with `make programs`"
    )]
    NoAccount(String),
    /// It has no such output.
    #[error("the stack \"{0}\" has no output {1}: pass the --stack of a bridge of this version")]
    NoOutput(String, &'static str),
    /// No credentials.
    #[error("cannot find AWS credentials: run `aws sso login`, or pass --aws-profile")]
    Credentials(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call failed without a response.
    #[error("cannot reach {url}")]
    Unreachable {
        /// Its URL.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The call timed out.
    #[error("the call of {0} timed out; try again")]
    TimedOut(String),
    /// The bridge refused the call.
    #[error("{message} ({status}, {code}{})", request_id.as_ref().map(|id| format!(", request {id}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error code.
        code: String,
        /// The bridge's message.
        message: String,
        /// The request's id in the function's log.
        request_id: Option<String>,
    },
    /// The response is not one of the API.
    #[error("unexpected response of {0}: check that it is the URL of a submit function")]
    UnexpectedResponse(String),
    /// DynamoDB refused.
    #[error("cannot read the table \"{table}\"{}", endpoint.as_ref().map(|url| format!(" at {url}")).unwrap_or_default())]
    Table {
        /// Its name.
        table: String,
        /// Its endpoint, if it differs from that of AWS.
        endpoint: Option<String>,
        /// The cause.
        #[source]
        source: Box<aws_sdk_dynamodb::Error>,
    },
}

/// The domain of AWS's endpoints in a Region, by its partition: botocore's `partitions.json`.
fn domain(region: &str) -> &'static str {
    match region.split('-').next().unwrap_or_default() {
        "cn" => "amazonaws.com.cn",
        "eusc" => "amazonaws.eu",
        "us" if region.starts_with("us-iso-") => "c2s.ic.gov",
        "us" if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        "us" if region.starts_with("us-isof-") => "csp.hci.ic.gov",
        "eu" if region.starts_with("eu-isoe-") => "cloud.adc-e.uk",
        _ => "amazonaws.com",
    }
}

impl BridgeError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unknown { .. }
            | Self::ReadyFile { .. }
            | Self::Stack(..)
            | Self::NoOutput(..)
            | Self::Credentials(_)
            | Self::UnexpectedResponse(_)
            | Self::Table { .. } => false,
            #[cfg(not(feature = "account"))]
            Self::NoAccount(_) => false,
        }
    }

    /// Whether the bridge does not know the submission or path.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// The time of this machine, in epoch milliseconds.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// A row of the table, or a record of the API.
pub type Record = Map<String, Value>;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

impl Where {
    /// Returns whether flags or the environment name a bridge, so that no local stack is meant.
    fn is_elsewhere(&self) -> bool {
        let flags = [&self.stack, &self.url, &self.function, &self.table];
        let variables = ["ECS_BRIDGE_STACK", "ECS_BRIDGE_URL", "ECS_BRIDGE_FUNCTION", "ECS_BRIDGE_TABLE"];
        flags.into_iter().any(Option::is_some)
            || variables.into_iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }

    /// Finds the bridge. Flags take precedence over the file of a local stack, that over the stack, and that over the
    /// environment.
    pub async fn find(&self) -> Result<Bridge, BridgeError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let ready = match self.local.clone().or_else(|| variable("ECS_BRIDGE_LOCAL").map(PathBuf::from)) {
            Some(path) => ReadyFile::wait(&path, Duration::from_secs(2)).await?,
            None if self.is_elsewhere() => ReadyFile::default(),
            None => match default_ready_file() {
                Some(path) => match ReadyFile::wait(&path, Duration::from_millis(500)).await {
                    Err(BridgeError::ReadyFile { source, .. }) if source.kind() == ErrorKind::NotFound => {
                        ReadyFile::default()
                    }
                    ready => ready?,
                },
                None => ReadyFile::default(),
            },
        };
        let dynamodb_url =
            self.dynamodb_url.clone().or(ready.dynamodb_url).or_else(|| variable("AWS_ENDPOINT_URL_DYNAMODB"));
        let given_url = self.url.clone().or(ready.submit_url);
        let url = given_url.clone().or_else(|| variable("ECS_BRIDGE_URL"));
        let of_url = url.as_deref().and_then(region_of);
        let region = self.region.clone().or(ready.region).or(of_url);

        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let http_client = Builder::new().tls_provider(tls.clone()).build_https();
        let mut config = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client);
        if let Some(region) = region {
            config = config.region(Region::new(region));
        }
        if let Some(profile) = &self.aws_profile {
            config = config.profile_name(profile);
        }
        let stack = self.stack.clone().or_else(|| variable("ECS_BRIDGE_STACK"));
        // A local stack knows one user, and no CloudFormation knows it: a named stack behind a tunnel or an emulator of AWS has
        // the caller's credentials.
        if stack.is_none() && [&url, &dynamodb_url].into_iter().flatten().any(|url| is_local(url)) {
            config = config.credentials_provider(Credentials::from_keys(LOCAL_KEY, LOCAL_KEY, None));
        }
        let config = config.load().await;
        let outputs = match stack {
            Some(stack) => outputs(&config, &stack).await?,
            None => BTreeMap::new(),
        };
        let local = match (ready.lambda_url, ready.ecs_url) {
            (Some(lambda_url), Some(ecs_url)) => Some(LocalStack { lambda_url, ecs_url, log_dir: ready.log_dir }),
            _ => None,
        };
        let first = |flag: &Option<String>, ready: Option<String>, output: &str, name: &str| {
            flag.clone().or(ready).or_else(|| outputs.get(output).cloned()).or_else(|| variable(name))
        };
        let url =
            first(&given_url, None, "SubmitUrl", "ECS_BRIDGE_URL").map(|url| url.trim_end_matches('/').to_owned());
        let mut function = self.function.clone().or_else(|| variable("ECS_BRIDGE_FUNCTION"));
        if url.is_none() {
            // Functions without URLs.
            function = function.or(ready.submit_function).or_else(|| outputs.get("SubmitFunctionName").cloned());
        }
        let lambda_url = local.as_ref().map(|local| local.lambda_url.clone());
        Ok(Bridge {
            function: function.map(|name| (name, lambda(&config, lambda_url))),
            url,
            table: first(&self.table, ready.table, "TableName", "ECS_BRIDGE_TABLE"),
            deployment: first(&self.deployment, ready.deployment, "DeploymentName", "ECS_BRIDGE_DEPLOYMENT"),
            config,
            dynamodb_url,
            connector: Connector::builder().tls_provider(tls).build(),
            outputs,
            local,
        })
    }
}

impl ReadyFile {
    /// Reads the file. If it does not exist, waits for a local stack that is starting, and for one that is about to start.
    async fn wait(path: &Path, patience: Duration) -> Result<Self, BridgeError> {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(path);
            let is_absent = text.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            if is_absent && (is_starting(path) || began.elapsed() < patience) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let parsed = text.and_then(|text| serde_json::from_str(&text).map_err(Into::into));
            return parsed.map_err(|source| BridgeError::ReadyFile { path: path.to_owned(), source });
        }
    }
}

/// Lambda, at this endpoint if not that of AWS.
pub fn lambda(config: &SdkConfig, endpoint: Option<String>) -> aws_sdk_lambda::Client {
    let mut config = aws_sdk_lambda::config::Builder::from(config);
    if endpoint.is_some() {
        config.set_endpoint_url(endpoint);
    }
    aws_sdk_lambda::Client::from_conf(config.build())
}

/// The outputs of a stack.
#[cfg(not(feature = "account"))]
async fn outputs(_: &SdkConfig, stack: &str) -> Result<BTreeMap<String, String>, BridgeError> {
    Err(BridgeError::NoAccount(stack.to_owned()))
}

/// The outputs of a stack.
#[cfg(feature = "account")]
async fn outputs(config: &SdkConfig, stack: &str) -> Result<BTreeMap<String, String>, BridgeError> {
    let client = aws_sdk_cloudformation::Client::new(config);
    let answer = client.describe_stacks().stack_name(stack).send().await;
    let answer = answer
        .map_err(|error| BridgeError::Stack(stack.to_owned(), aws_sdk_cloudformation::Error::from(error).into()))?;
    let outputs = answer.stacks().iter().flat_map(|stack| stack.outputs());
    let outputs: BTreeMap<_, _> = outputs
        .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())))
        .collect();
    if !outputs.contains_key("TableName") {
        return Err(BridgeError::NoOutput(stack.to_owned(), "TableName"));
    }
    Ok(outputs)
}

/// `https://ID.lambda-url.REGION.on.aws`
fn region_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once(".lambda-url.")?;
    rest.split('.').next().map(str::to_owned)
}

fn is_local(url: &str) -> bool {
    let host = url.strip_prefix("http://").unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}

impl Bridge {
    /// Calls the API and returns the JSON of its response.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, BridgeError> {
        if let Some((name, client)) = &self.function {
            let endpoint = self.local.as_ref().map(|local| local.lambda_url.as_str());
            return invoke(client, name, endpoint, path, body).await;
        }
        let url = self.address(path)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = self.send(self.signed(method, &url, body, "lambda").await?, &url).await?;
        let parsed = serde_json::from_slice::<Value>(&response.body);
        if response.status == 200 {
            return parsed.map_err(|_| BridgeError::UnexpectedResponse(url));
        }
        Err(refusal(response.status, parsed.unwrap_or_default()))
    }

    /// What the API says of the deployment, whether it is well or not.
    pub async fn health(&self) -> Result<Health, BridgeError> {
        const PATH: &str = "/v1/health";
        if self.function.is_some() {
            return Ok(Health { body: self.call("GET", PATH, None).await?, date: None });
        }
        let url = self.address(PATH)?;
        let response = self.send(self.signed("GET", &url, String::new(), "lambda").await?, &url).await?;
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        // With 503, its checks say more than its error does.
        if response.status != 200 && body.get("checks").is_none() {
            return Err(refusal(response.status, body));
        }
        Ok(Health { body, date: response.date })
    }

    /// The status of a call of the API that nobody signed, or that somebody signed with the wrong secret, and its body.
    pub async fn call_as_stranger(&self, path: &str, wrong_secret: bool) -> Result<(u16, String), BridgeError> {
        let url = self.address(path)?;
        let request = if wrong_secret {
            let credentials = self.credentials().await?;
            let guessed = Credentials::new(
                credentials.access_key_id(),
                "not the secret of this key",
                credentials.session_token().map(str::to_owned),
                None,
                "guessed",
            );
            self.signed_as(guessed, "GET", &url, String::new(), "lambda")?
        } else {
            unsigned("GET", &url, String::new())
                .map_err(|source| BridgeError::Unreachable { url: url.clone(), source })?
        };
        let response = self.send(request, &url).await?;
        Ok((response.status, String::from_utf8_lossy(&response.body).into_owned()))
    }

    /// Asks EC2 for these subnets. Returns its refusal, if there is one.
    ///
    /// By a request of our own: the SDK of EC2 is larger than everything else here.
    pub async fn describe_subnets(&self, ids: &[&str]) -> Result<Option<String>, BridgeError> {
        let unknown = BridgeError::Unknown { what: "the AWS Region", flag: "--region REGION", variable: "AWS_REGION" };
        let region = self.config.region().ok_or(unknown)?;
        let endpoint = std::env::var("AWS_ENDPOINT_URL_EC2").or_else(|_| std::env::var("AWS_ENDPOINT_URL"));
        let endpoint = endpoint.unwrap_or_else(|_| format!("https://ec2.{region}.{}", domain(region.as_ref())));
        let ids = ids.iter().enumerate().map(|(at, id)| format!("&SubnetId.{}={id}", at + 1));
        let query = format!("Action=DescribeSubnets&Version=2016-11-15{}", ids.collect::<String>());
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let response = self.send(self.signed("POST", &url, query, "ec2").await?, &url).await?;
        if response.status == 200 {
            return Ok(None);
        }
        let body = String::from_utf8_lossy(&response.body).into_owned();
        let of = |name: &str| {
            body.split_once(&format!("<{name}>")).and_then(|(_, rest)| Some(rest.split_once("</")?.0.to_owned()))
        };
        Ok(Some(format!("{}: {}", of("Code").unwrap_or_default(), of("Message").unwrap_or_default())))
    }

    fn address(&self, path: &str) -> Result<String, BridgeError> {
        let unknown =
            BridgeError::Unknown { what: "the URL of the bridge", flag: "--url URL", variable: "ECS_BRIDGE_URL" };
        Ok(format!("{}{path}", self.url.as_ref().ok_or(unknown)?))
    }

    async fn send(&self, request: aws_smithy_runtime_api::http::Request, url: &str) -> Result<Response, BridgeError> {
        let unreachable = |source: Boxed| BridgeError::Unreachable { url: url.to_owned(), source };
        let answer = async {
            let answer = self.connector.call(request).await.map_err(|error| unreachable(error.into()))?;
            let status = answer.status().as_u16();
            let date = answer.headers().get("date").and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
            let date = date.map(|date| date.unix_timestamp().saturating_mul(1_000));
            let body =
                ByteStream::new(answer.into_body()).collect().await.map_err(|error| unreachable(error.into()))?;
            Ok(Response { status, date, body: body.to_vec() })
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
        answer.map_err(|_| BridgeError::TimedOut(url.to_owned()))?
    }

    /// The credentials that calls are signed with.
    pub async fn credentials(&self) -> Result<Credentials, BridgeError> {
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| BridgeError::Credentials("none is configured".into()))?;
        provider.provide_credentials().await.map_err(|error| BridgeError::Credentials(error.into()))
    }

    async fn signed(
        &self,
        method: &str,
        url: &str,
        body: String,
        service: &str,
    ) -> Result<aws_smithy_runtime_api::http::Request, BridgeError> {
        self.signed_as(self.credentials().await?, method, url, body, service)
    }

    fn signed_as(
        &self,
        credentials: Credentials,
        method: &str,
        url: &str,
        body: String,
        service: &str,
    ) -> Result<aws_smithy_runtime_api::http::Request, BridgeError> {
        let unreachable = |source: Boxed| BridgeError::Unreachable { url: url.to_owned(), source };
        let identity = credentials.into();
        let unknown = BridgeError::Unknown { what: "the AWS Region", flag: "--region REGION", variable: "AWS_REGION" };
        let region = self.config.region().ok_or(unknown)?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name(service)
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unreachable(error.into()))?
            .into();
        let signable =
            SignableRequest::new(method, url, headers(service).into_iter(), SignableBody::Bytes(body.as_bytes()));
        let signed =
            signable.and_then(|request| sign(request, &parameters)).map_err(|error| unreachable(error.into()))?;
        let mut request = plain_request(method, url, body, service).map_err(|error| unreachable(error.into()))?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        request.try_into().map_err(|error: aws_smithy_runtime_api::http::HttpError| unreachable(error.into()))
    }

    /// What clients of its account are made of.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The deployment's name.
    pub fn deployment(&self) -> Result<&str, BridgeError> {
        let unknown = BridgeError::Unknown {
            what: "the name of the deployment",
            flag: "--deployment NAME",
            variable: "ECS_BRIDGE_DEPLOYMENT",
        };
        self.deployment.as_deref().ok_or(unknown)
    }

    /// The record of a submission, from the API.
    pub async fn record(&self, id: &str) -> Result<Record, BridgeError> {
        let path = format!("/v1/submissions/{id}");
        match self.call("GET", &path, None).await? {
            Value::Object(record) => Ok(record),
            _ => Err(BridgeError::UnexpectedResponse(path)),
        }
    }

    /// The ids that begin with these letters: of submissions that have not ended, and of the 10,000 that ended last.
    pub async fn ids_with_prefix(&self, prefix: &str) -> Result<Vec<String>, BridgeError> {
        const MOST: usize = 10_000;
        let table = self.table()?;
        let mut ids: BTreeSet<_> = table.ids_in_due().await?.into_iter().collect();
        if let Some(deployment) = &self.deployment {
            ids.extend(table.ids_since(deployment, 0, MOST).await?);
        }
        Ok(ids.into_iter().filter(|id| id.starts_with(prefix)).collect())
    }

    /// Whether the table is known, which not every command needs.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    fn table(&self) -> Result<Table, BridgeError> {
        let unknown =
            BridgeError::Unknown { what: "the name of the table", flag: "--table NAME", variable: "ECS_BRIDGE_TABLE" };
        let name = self.table.clone().ok_or(unknown)?;
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.config);
        if let Some(endpoint) = &self.dynamodb_url {
            config.set_endpoint_url(Some(endpoint.clone()));
        }
        Ok(Table {
            name,
            endpoint: self.dynamodb_url.clone(),
            client: aws_sdk_dynamodb::Client::from_conf(config.build()),
        })
    }

    /// The indexes of the table that are active.
    pub async fn table_indexes(&self) -> Result<BTreeSet<String>, BridgeError> {
        let table = self.table()?;
        let answer = table.client.describe_table().table_name(&table.name).send().await;
        let shown = answer.map_err(|error| table.error(error))?.table;
        let indexes = shown.and_then(|table| table.global_secondary_indexes).unwrap_or_default();
        let active = indexes.into_iter().filter(|index| index.index_status == Some(IndexStatus::Active));
        Ok(active.filter_map(|index| index.index_name).collect())
    }

    /// The profiles that have a pool.
    pub async fn pools(&self) -> Result<Vec<String>, BridgeError> {
        let row = self.table()?.row(LAUNCH_RATE).await?;
        let mut names: Vec<_> = row.keys().filter_map(|name| name.strip_prefix("pool/").map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// The row of a profile's pool; empty if there is none.
    pub async fn pool(&self, profile: &str) -> Result<Row, BridgeError> {
        Ok(Row::new(self.table()?.row(&pool_row(profile)).await?))
    }

    /// The ids in a partition of the `pool` index, the first to be served first.
    pub async fn in_pool(&self, partition: &str) -> Result<Vec<String>, BridgeError> {
        self.table()?.ids_of("pool", partition, usize::MAX, true).await
    }

    /// The records of these ids, in no order.
    pub async fn records(&self, ids: &[String]) -> Result<Vec<Record>, BridgeError> {
        self.table()?.records(ids).await
    }

    /// Sets attributes of a pool's row, and removes those without a value, if the row is still at this `rev`. Returns
    /// whether it was.
    pub async fn set_pool(
        &self,
        profile: &str,
        rev: Option<i64>,
        changes: &BTreeMap<&'static str, Option<Value>>,
    ) -> Result<bool, BridgeError> {
        let table = self.table()?;
        let key = AttributeValue::S(pool_row(profile));
        let mut request = table.client.update_item().table_name(&table.name).key("submission_id", key);
        let (mut set, mut remove) = (vec!["#rev = :next".to_owned()], Vec::new());
        for (name, value) in changes {
            request = request.expression_attribute_names(format!("#{name}"), *name);
            match value.as_ref().and_then(attribute) {
                Some(value) => {
                    set.push(format!("#{name} = :{name}"));
                    request = request.expression_attribute_values(format!(":{name}"), value);
                }
                None => remove.push(format!("#{name}")),
            }
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression = format!("{expression} REMOVE {}", remove.join(", "));
        }
        let number = |number: i64| AttributeValue::N(number.to_string());
        request = match rev {
            Some(rev) => request.condition_expression("#rev = :rev").expression_attribute_values(":rev", number(rev)),
            None => request.condition_expression("attribute_not_exists(#rev)"),
        };
        let request = request
            .update_expression(expression)
            .expression_attribute_names("#rev", "rev")
            .expression_attribute_values(":next", number(rev.unwrap_or_default() + 1));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) => match aws_sdk_dynamodb::Error::from(error) {
                aws_sdk_dynamodb::Error::ConditionalCheckFailedException(_) => Ok(false),
                error => Err(table.error(error)),
            },
        }
    }

    /// Who this is, for a note of who changed something: the user of this machine and the access key.
    pub async fn who(&self) -> Result<String, BridgeError> {
        let user =
            std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown user".into());
        Ok(format!("{user} ({})", self.credentials().await?.access_key_id()))
    }

    /// The records of all submissions that have not ended.
    pub async fn in_flight(&self) -> Result<Vec<Record>, BridgeError> {
        let table = self.table()?;
        let ids = table.ids_in_due().await?;
        let mut records = table.records(&ids).await?;
        // The index is eventually consistent: a submission that has just ended may still be in it. So is one with
        // pending notifications.
        records.retain(|record| record.contains_key("due") && !record.contains_key("changed_at"));
        Ok(records)
    }

    /// Reads submissions that have not ended, those that are due first, until `wanted` has been given `limit` of them that
    /// it wants, or `most` rows were read. Of each row, it reads these attributes alone.
    ///
    /// Index and rows are read eventually consistent, at half a read unit for each 4 KB.
    pub async fn first_in_flight(
        &self,
        Wanted { limit, most, runners, attributes }: Wanted<'_>,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<InFlight, BridgeError> {
        let table = self.table()?;
        let mut cursors: Vec<_> = table.due_partitions(runners).await?.into_iter().map(Cursor::new).collect();
        // Something that moves from one partition to another may be seen in both.
        let (mut records, mut seen) = (Vec::new(), HashSet::new());
        // To find a few among many, it reads whole batches.
        let (page, at_once) = if most > limit { (10 * BATCH, BATCH) } else { (limit, 0) };
        while records.len() < limit && seen.len() < most {
            let left = at_once.max(limit - records.len()).min(BATCH).min(most - seen.len());
            let mut ids = Vec::new();
            while ids.len() < left {
                let Some(id) = table.next_due(&mut cursors, page).await? else { break };
                if (runners || !id.starts_with(RUNNER)) && seen.insert(id.clone()) {
                    ids.push(id);
                }
            }
            if ids.is_empty() {
                break;
            }
            let rows = table.projected(&ids, Some(attributes)).await?;
            // The index may still show what has just ended. It may also show one that has ended and has pending notifications.
            let is_in_flight = |record: &Record| record.contains_key("due") && !record.contains_key("changed_at");
            records.extend(rows.into_iter().filter(|record| is_in_flight(record) && wanted(record)));
        }
        let has_more = records.len() > limit || table.next_due(&mut cursors, page).await?.is_some();
        records.truncate(limit);
        Ok(InFlight { records, has_more, read: seen.len() })
    }

    /// The number of submissions, and of runners if they are wanted, that have not ended. It reads the keys of all, some
    /// 1,000 for 16 read units.
    pub async fn count_in_flight(&self, runners: bool) -> Result<usize, BridgeError> {
        let table = self.table()?;
        let mut count = 0;
        for partition in table.due_partitions(runners).await? {
            count += table
                .ids_of("due", &partition, usize::MAX, true)
                .await?
                .iter()
                .filter(|id| runners || !id.starts_with(RUNNER))
                .count();
        }
        Ok(count)
    }

    /// The first ids in a partition of the `pool` index, the first to be served first, and whether there are more.
    pub async fn first_in_pool(&self, partition: &str, limit: usize) -> Result<(Vec<String>, bool), BridgeError> {
        let table = self.table()?;
        let (items, next) = table.page("pool", partition, limit, None).await?;
        Ok((items.iter().filter_map(submission_id).collect(), next.is_some()))
    }

    /// The records of the `most` submissions that ended last, the newest first.
    pub async fn ended(&self, most: usize) -> Result<Vec<Record>, BridgeError> {
        self.ended_since(0, most).await
    }

    /// The same of those that ended at `since`, in epoch milliseconds, or later.
    pub async fn ended_since(&self, since: i64, most: usize) -> Result<Vec<Record>, BridgeError> {
        let deployment = self.deployment()?;
        let table = self.table()?;
        let ids = table.ids_since(deployment, since, most).await?;
        let mut records = table.records(&ids).await?;
        let changed = |record: &Record| record.get("changed_at").and_then(Value::as_u64);
        records.sort_by_key(|record| std::cmp::Reverse(changed(record)));
        Ok(records)
    }
}

/// What [`Bridge::first_in_flight`] reads.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The number of records at most.
    pub limit: usize,
    /// The number of rows to read for them at most.
    pub most: usize,
    /// Runners too.
    pub runners: bool,
    /// The attributes of each.
    pub attributes: &'a [&'a str],
}

/// What it found.
#[derive(Debug)]
pub struct InFlight {
    /// The records.
    pub records: Vec<Record>,
    /// Whether there may be more.
    pub has_more: bool,
    /// How many rows were read.
    pub read: usize,
}

/// What the ids of runners begin with.
const RUNNER: &str = "runner-";

/// A partition of the `due` index that is read as far as it is needed.
struct Cursor {
    partition: String,
    /// What was read and not used yet, with its timer, the first one last.
    rows: Vec<(u64, String)>,
    next: Option<HashMap<String, AttributeValue>>,
    is_at_end: bool,
}

impl Cursor {
    fn new(partition: String) -> Self {
        Self { partition, rows: Vec::new(), next: None, is_at_end: false }
    }
}

/// The headers of each call, which are signed.
fn headers(service: &str) -> [(&'static str, &'static str); 1] {
    [("content-type", if service == "ec2" { "application/x-www-form-urlencoded" } else { "application/json" })]
}

fn plain_request(method: &str, url: &str, body: String, service: &str) -> Result<http::Request<SdkBody>, http::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers(service) {
        request = request.header(name, value);
    }
    request.body(SdkBody::from(body))
}

fn unsigned(method: &str, url: &str, body: String) -> Result<aws_smithy_runtime_api::http::Request, Boxed> {
    Ok(plain_request(method, url, body, "lambda")?.try_into()?)
}

/// An answer over HTTP.
struct Response {
    status: u16,
    /// Its `date`, in epoch milliseconds.
    date: Option<i64>,
    body: Vec<u8>,
}

/// What the API says of the deployment.
#[derive(Debug)]
pub struct Health {
    /// As the API has it.
    pub body: Value,
    /// The time of AWS, in epoch milliseconds, if known.
    pub date: Option<i64>,
}

/// Calls the API by a direct invocation, whose payload is the body, and returns the JSON of its answer.
async fn invoke(
    client: &aws_sdk_lambda::Client,
    name: &str,
    endpoint: Option<&str>,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, BridgeError> {
    let payload = match (path, body) {
        (_, Some(body)) => body.clone(),
        ("/v1/health", None) => json!({"health": true}),
        (_, None) => json!({"submission_id": path.rsplit('/').next()}),
    };
    let request = client.invoke().function_name(name).payload(Blob::new(payload.to_string())).send();
    let answer = tokio::time::timeout(CALL_TIMEOUT, request).await;
    let answer = answer.map_err(|_| BridgeError::TimedOut(name.to_owned()))?;
    let answer = answer.map_err(|error| BridgeError::Unreachable {
        url: format!("the function \"{name}\"{}", endpoint.map(|url| format!(" at {url}")).unwrap_or_default()),
        source: aws_sdk_lambda::Error::from(error).into(),
    })?;
    let body: Value = answer
        .payload()
        .and_then(|payload| serde_json::from_slice(payload.as_ref()).ok())
        .ok_or_else(|| BridgeError::UnexpectedResponse(name.to_owned()))?;
    if answer.function_error().is_none() {
        return Ok(body);
    }
    let text = |member: &str| body.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (text("errorType"), text("errorMessage"));
    // As the HTTP API has it. What the function did not say itself, such as a timeout, may pass.
    let status = match code.as_str() {
        "not_found" => 404,
        "unavailable" => 503,
        "too_large" => 413,
        "bad_request" => 400,
        "unprocessable" => 422,
        _ => 502,
    };
    Err(BridgeError::Refused { status, code, message, request_id: None })
}

/// The error of a response, be it the bridge's or Lambda's own.
fn refusal(status: u16, body: Value) -> BridgeError {
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let message = text("/error/message").or_else(|| text("/Message")).or_else(|| text("/message"));
    BridgeError::Refused {
        status,
        code: text("/error/code").unwrap_or_else(|| "no code".into()),
        message: message.unwrap_or_else(|| "the call was refused".into()),
        request_id: text("/request_id"),
    }
}

/// Rows of an index, and where to read on.
type Page = (Vec<HashMap<String, AttributeValue>>, Option<HashMap<String, AttributeValue>>);

struct Table {
    name: String,
    endpoint: Option<String>,
    client: aws_sdk_dynamodb::Client,
}

impl Table {
    /// The keys of the `due` index, which holds exactly the submissions that have not ended: a query for each partition.
    async fn ids_in_due(&self) -> Result<Vec<String>, BridgeError> {
        let mut ids = BTreeSet::new();
        for partition in self.due_partitions(true).await? {
            // Something that moves from one to another may be seen in both.
            ids.extend(self.ids_of("due", &partition, usize::MAX, true).await?);
        }
        Ok(ids.into_iter().collect())
    }

    /// The partitions of the `due` index.
    async fn due_partitions(&self, runners: bool) -> Result<BTreeSet<String>, BridgeError> {
        let row = self.row(LAUNCH_RATE).await?;
        // Submissions that wait for capacity have a partition for each choice of which anything is known.
        let of_choice = |name: &String| Some(format!("waiting/{}", name.strip_prefix("capacity/")?));
        let fixed = DUE_PARTITIONS.into_iter().filter(|partition| runners || *partition != "runners");
        Ok(row.keys().filter_map(of_choice).chain(fixed.map(str::to_owned)).collect())
    }

    /// The id that is due first of those that the cursors have not returned.
    async fn next_due(&self, cursors: &mut [Cursor], page: usize) -> Result<Option<String>, BridgeError> {
        for cursor in cursors.iter_mut() {
            while cursor.rows.is_empty() && !cursor.is_at_end {
                let (items, next) = self.page("due", &cursor.partition, page, cursor.next.take()).await?;
                let due = |item: &HashMap<_, _>| {
                    let at = item.get("check_at").and_then(|at: &AttributeValue| at.as_n().ok()?.parse().ok());
                    Some((at.unwrap_or_default(), submission_id(item)?))
                };
                cursor.rows = items.iter().rev().filter_map(due).collect();
                cursor.is_at_end = next.is_none();
                cursor.next = next;
            }
        }
        let first = cursors.iter_mut().filter(|cursor| !cursor.rows.is_empty());
        let first = first.min_by_key(|cursor| cursor.rows.last().map(|(at, _)| *at));
        Ok(first.and_then(|cursor| cursor.rows.pop()).map(|(_, id)| id))
    }

    /// Some keys of a partition of an index, the first ones first, and where to read on.
    async fn page(
        &self,
        index: &str,
        partition: &str,
        limit: usize,
        from: Option<HashMap<String, AttributeValue>>,
    ) -> Result<Page, BridgeError> {
        let answer = self
            .partition(index, partition)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_exclusive_start_key(from)
            .send()
            .await
            .map_err(|error| self.error(error))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    /// A row, read consistently; empty if there is none.
    async fn row(&self, key: &str) -> Result<Record, BridgeError> {
        let key = AttributeValue::S(key.to_owned());
        let request = self.client.get_item().table_name(&self.name).key("submission_id", key).consistent_read(true);
        let answer = request.send().await.map_err(|error| self.error(error))?;
        Ok(answer.item.into_iter().flatten().map(|(name, value)| (name, plain(value))).collect())
    }

    /// The keys of the submissions of a deployment that ended at `since` or later, the newest first.
    async fn ids_since(&self, deployment: &str, since: i64, most: usize) -> Result<Vec<String>, BridgeError> {
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .index_name("feed")
            .key_condition_expression("feed = :feed AND changed_at >= :since")
            .expression_attribute_values(":feed", AttributeValue::S(deployment.to_owned()))
            .expression_attribute_values(":since", AttributeValue::N(since.to_string()))
            .scan_index_forward(false);
        self.ids(query, most).await
    }

    /// The keys of a partition of an index, from either end.
    async fn ids_of(
        &self,
        index: &str,
        partition: &str,
        most: usize,
        forward: bool,
    ) -> Result<Vec<String>, BridgeError> {
        self.ids(self.partition(index, partition).scan_index_forward(forward), most).await
    }

    /// A query of a partition of an index.
    fn partition(&self, index: &str, partition: &str) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .index_name(index)
            .key_condition_expression("#partition = :partition")
            .expression_attribute_names("#partition", index)
            .expression_attribute_values(":partition", AttributeValue::S(partition.to_owned()))
    }

    async fn ids(&self, query: QueryFluentBuilder, most: usize) -> Result<Vec<String>, BridgeError> {
        let mut pages = query.into_paginator().items().send();
        let mut ids = Vec::new();
        while ids.len() < most {
            let Some(item) = pages.next().await else { break };
            let item = item.map_err(|error| self.error(error))?;
            ids.extend(submission_id(&item));
        }
        Ok(ids)
    }

    async fn records(&self, ids: &[String]) -> Result<Vec<Record>, BridgeError> {
        self.projected(ids, None).await
    }

    /// Rows by their ids, eventually consistent, with these attributes alone.
    async fn projected(&self, ids: &[String], attributes: Option<&[&str]>) -> Result<Vec<Record>, BridgeError> {
        let mut records = Vec::new();
        for batch in ids.chunks(BATCH) {
            let key = |id: &String| [("submission_id".to_owned(), AttributeValue::S(id.clone()))].into();
            let mut keys = KeysAndAttributes::builder().set_keys(Some(batch.iter().map(key).collect()));
            for (at, name) in attributes.into_iter().flatten().enumerate() {
                keys = keys.expression_attribute_names(format!("#{at}"), *name);
            }
            let names =
                attributes.map(|names| (0..names.len()).map(|at| format!("#{at}")).collect::<Vec<_>>().join(", "));
            let keys = keys.set_projection_expression(names).build();
            let mut left = Some([(self.name.clone(), keys.map_err(|error| self.error(error))?)].into());
            while let Some(keys) = left.filter(|left: &HashMap<_, _>| !left.is_empty()) {
                let answer = self.client.batch_get_item().set_request_items(Some(keys)).send().await;
                let answer = answer.map_err(|error| self.error(error))?;
                let items = answer.responses.into_iter().flatten().flat_map(|(_, items)| items);
                records.extend(items.map(|item| item.into_iter().map(|(name, value)| (name, plain(value))).collect()));
                left = answer.unprocessed_keys;
            }
        }
        Ok(records)
    }

    fn error(&self, error: impl Into<aws_sdk_dynamodb::Error>) -> BridgeError {
        BridgeError::Table { table: self.name.clone(), endpoint: self.endpoint.clone(), source: Box::new(error.into()) }
    }
}

/// The partitions of the `due` index, but for those of profiles without capacity: the timers, what is to be launched for the
/// first time and again, and runners.
const DUE_PARTITIONS: [&str; 7] = ["0", "1", "2", "3", "queued", "repeat", "runners"];

/// The key of the launch rate's row, which also names the profiles with a pool, and those whose capacity is known.
const LAUNCH_RATE: &str = "#launch-rate";

fn pool_row(profile: &str) -> String {
    format!("#pool/{profile}")
}

/// A text, a whole number or a truth value as an attribute.
fn attribute(value: &Value) -> Option<AttributeValue> {
    match value {
        Value::String(text) => Some(AttributeValue::S(text.clone())),
        Value::Number(number) => Some(AttributeValue::N(number.to_string())),
        Value::Bool(truth) => Some(AttributeValue::Bool(*truth)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn submission_id(item: &HashMap<String, AttributeValue>) -> Option<String> {
    item.get("submission_id").and_then(|id| id.as_s().ok()).cloned()
}

/// An attribute as JSON. Bytes, which no record shows, become null.
fn plain(value: AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => text.into(),
        AttributeValue::N(number) => number.parse::<Number>().map_or(Value::Null, Value::Number),
        AttributeValue::Bool(truth) => truth.into(),
        AttributeValue::L(items) => items.into_iter().map(plain).collect(),
        AttributeValue::M(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        AttributeValue::Ss(texts) => texts.into(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_a_function_url() {
        assert_eq!(region_of("https://abc.lambda-url.eu-central-1.on.aws/").as_deref(), Some("eu-central-1"));
        assert_eq!(region_of("http://127.0.0.1:8080"), None);
    }

    #[test]
    fn domain_of_aws_is_that_of_the_partition() {
        assert_eq!([domain("cn-north-1"), domain("cn-northwest-1")], ["amazonaws.com.cn"; 2]);
        assert_eq!([domain("eu-west-1"), domain("us-gov-west-1"), domain("us-east-1")], ["amazonaws.com"; 3]);
        assert_eq!(domain("us-iso-east-1"), "c2s.ic.gov");
        assert_eq!(domain("us-isob-east-1"), "sc2s.sgov.gov");
        assert_eq!(domain("eusc-de-east-1"), "amazonaws.eu");
    }

    #[test]
    fn only_plain_loopback_addresses_are_local() {
        assert!(is_local("http://127.0.0.1:8080/x") && is_local("http://localhost") && is_local("http://[::1]:1"));
        assert!(
            !is_local("https://127.0.0.1") && !is_local("http://127.0.0.1.example.org") && !is_local("http://10.0.0.1")
        );
    }

    #[test]
    fn a_refusal_has_the_message_of_the_bridge_or_of_lambda() {
        let body = serde_json::json!({"error": {"code": "too_large", "message": "too much"}, "request_id": "r"});
        assert_eq!(refusal(413, body).to_string(), "too much (413, too_large, request r)");
        assert_eq!(refusal(403, serde_json::json!({"Message": "Forbidden"})).to_string(), "Forbidden (403, no code)");
    }
}
