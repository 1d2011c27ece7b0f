//! A deployed or local bridge: how to find it, its HTTP API, and its table.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use aws_sdk_lambda::primitives::Blob;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use thiserror::Error;

use crate::pools::Row;

/// The timeout of a call: that of the function, and some seconds more.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);
/// DynamoDB's limit on the keys of a BatchGetItem.
const BATCH: usize = 100;

/// How to find the bridge. Values may also come from the ready file of a local stack, or from the environment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Bridge")]
pub struct Where {
    /// The file that `ecs-bridge local --ready-file` wrote [env: ECS_BRIDGE_READY_FILE]
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The URL of the submit function [env: ECS_BRIDGE_URL]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The name or ARN of the submit function, to invoke it instead of calling its URL [env: ECS_BRIDGE_FUNCTION]
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// The table's name [env: ECS_BRIDGE_TABLE]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// The deployment's name [env: ECS_BRIDGE_DEPLOYMENT]
    #[arg(long, value_name = "NAME")]
    deployment: Option<String>,
    /// The endpoint of DynamoDB, if not that of AWS [env: AWS_ENDPOINT_URL_DYNAMODB]
    #[arg(long, value_name = "URL")]
    dynamodb_url: Option<String>,
    /// The region [default: from the URL, else from the AWS configuration]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ReadyFile {
    submit_url: Option<String>,
    lambda_url: Option<String>,
    dynamodb_url: Option<String>,
    table: Option<String>,
    deployment: Option<String>,
    region: Option<String>,
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
    connector: Connector,
}

/// Why a call to the bridge failed.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// A required value is not set.
    #[error("the {what} is not set: use {flag}, {variable}, or the --ready-file of a local stack")]
    Unknown {
        /// The value.
        what: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its environment variable.
        variable: &'static str,
    },
    /// The ready file cannot be read.
    #[error("cannot read the ready file {}", path.display())]
    ReadyFile {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No credentials.
    #[error("no AWS credentials to sign the call with")]
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
    #[error("the call of {0} timed out")]
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
    #[error("the response of {0} is not one of the bridge's API")]
    NotUnderstood(String),
    /// DynamoDB refused.
    #[error("cannot read the table {table}")]
    Table {
        /// Its name.
        table: String,
        /// The cause.
        #[source]
        source: Box<aws_sdk_dynamodb::Error>,
    },
}

impl BridgeError {
    /// Whether a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unknown { .. }
            | Self::ReadyFile { .. }
            | Self::Credentials(_)
            | Self::NotUnderstood(_)
            | Self::Table { .. } => false,
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
    /// Finds the bridge. Flags take precedence over the ready file, and that over the environment.
    pub async fn find(&self) -> Result<Bridge, BridgeError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = self.ready_file.clone().or_else(|| variable("ECS_BRIDGE_READY_FILE").map(PathBuf::from));
        let ready = match path {
            None => ReadyFile::default(),
            Some(path) => {
                let text = std::fs::read_to_string(&path);
                let parsed = text.and_then(|text| serde_json::from_str(&text).map_err(Into::into));
                parsed.map_err(|source| BridgeError::ReadyFile { path, source })?
            }
        };
        let first = |flag: &Option<String>, ready: Option<String>, name: &str| {
            flag.clone().or(ready).or_else(|| variable(name))
        };
        let url = first(&self.url, ready.submit_url, "ECS_BRIDGE_URL");
        let dynamodb_url = first(&self.dynamodb_url, ready.dynamodb_url, "AWS_ENDPOINT_URL_DYNAMODB");
        let of_url = url.as_deref().and_then(region_of);
        let region = self.region.clone().or(ready.region).or(of_url);

        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let http_client = Builder::new().tls_provider(tls.clone()).build_https();
        let mut config = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client);
        if let Some(region) = region {
            config = config.region(Region::new(region));
        }
        // A local stack accepts any signature, and so needs no credentials.
        if [&url, &dynamodb_url].into_iter().flatten().any(|url| is_local(url)) {
            config = config.credentials_provider(Credentials::for_tests());
        }
        if let Some(endpoint) = dynamodb_url {
            config = config.endpoint_url(endpoint);
        }
        let config = config.load().await;
        let function = first(&self.function, None, "ECS_BRIDGE_FUNCTION").map(|name| {
            let mut lambda = aws_sdk_lambda::config::Builder::from(&config);
            // That of DynamoDB is not Lambda's.
            lambda.set_endpoint_url(ready.lambda_url);
            (name, aws_sdk_lambda::Client::from_conf(lambda.build()))
        });
        Ok(Bridge {
            function,
            url: url.map(|url| url.trim_end_matches('/').to_owned()),
            table: first(&self.table, ready.table, "ECS_BRIDGE_TABLE"),
            deployment: first(&self.deployment, ready.deployment, "ECS_BRIDGE_DEPLOYMENT"),
            config,
            connector: Connector::builder().tls_provider(tls).build(),
        })
    }
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
            return invoke(client, name, path, body).await;
        }
        let unknown = BridgeError::Unknown { what: "bridge's URL", flag: "--url", variable: "ECS_BRIDGE_URL" };
        let url = format!("{}{path}", self.url.as_ref().ok_or(unknown)?);
        let unreachable = |source: Boxed| BridgeError::Unreachable { url: url.clone(), source };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = self.signed(method, &url, body).await?;
        let answer = async {
            let answer = self.connector.call(request).await.map_err(|error| unreachable(error.into()))?;
            let status = answer.status().as_u16();
            let body =
                ByteStream::new(answer.into_body()).collect().await.map_err(|error| unreachable(error.into()))?;
            Ok((status, body.into_bytes()))
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
        let (status, body) = answer.map_err(|_| BridgeError::TimedOut(url.clone()))??;
        let parsed = serde_json::from_slice::<Value>(&body);
        if status == 200 {
            return parsed.map_err(|_| BridgeError::NotUnderstood(url));
        }
        Err(refusal(status, parsed.unwrap_or_default()))
    }

    async fn signed(
        &self,
        method: &str,
        url: &str,
        body: String,
    ) -> Result<aws_smithy_runtime_api::http::Request, BridgeError> {
        let unreachable = |source: Boxed| BridgeError::Unreachable { url: url.to_owned(), source };
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| BridgeError::Credentials("none is configured".into()))?;
        let credentials = provider.provide_credentials().await;
        let identity = credentials.map_err(|error| BridgeError::Credentials(error.into()))?.into();
        let unknown = BridgeError::Unknown { what: "region", flag: "--region", variable: "AWS_REGION" };
        let region = self.config.region().ok_or(unknown)?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region.as_ref())
            .name("lambda")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unreachable(error.into()))?
            .into();
        let headers = [("content-type", "application/json")];
        let signable = SignableRequest::new(method, url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()));
        let signed =
            signable.and_then(|request| sign(request, &parameters)).map_err(|error| unreachable(error.into()))?;
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(SdkBody::from(body)).map_err(|error| unreachable(error.into()))?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        request.try_into().map_err(|error: aws_smithy_runtime_api::http::HttpError| unreachable(error.into()))
    }

    /// The record of a submission, from the API.
    pub async fn record(&self, id: &str) -> Result<Record, BridgeError> {
        let path = format!("/v1/submissions/{id}");
        match self.call("GET", &path, None).await? {
            Value::Object(record) => Ok(record),
            _ => Err(BridgeError::NotUnderstood(path)),
        }
    }

    /// Whether the table is known, which not every command needs.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    fn table(&self) -> Result<Table, BridgeError> {
        let unknown = BridgeError::Unknown { what: "table's name", flag: "--table", variable: "ECS_BRIDGE_TABLE" };
        let name = self.table.clone().ok_or(unknown)?;
        Ok(Table { name, client: aws_sdk_dynamodb::Client::new(&self.config) })
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
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".into());
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| BridgeError::Credentials("none is configured".into()))?;
        let credentials = provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| BridgeError::Credentials(error.into()))?;
        Ok(format!("{user} ({})", credentials.access_key_id()))
    }

    /// The records of all submissions that have not ended.
    pub async fn in_flight(&self) -> Result<Vec<Record>, BridgeError> {
        let table = self.table()?;
        let ids = table.ids_in_due().await?;
        let mut records = table.records(&ids).await?;
        // The index is eventually consistent: a submission that has just ended may still be in it.
        records.retain(|record| record.contains_key("due"));
        Ok(records)
    }

    /// The records of the `most` submissions that ended last, the newest first.
    pub async fn ended(&self, most: usize) -> Result<Vec<Record>, BridgeError> {
        self.ended_since(0, most).await
    }

    /// The same of those that ended at `since`, in epoch milliseconds, or later.
    pub async fn ended_since(&self, since: i64, most: usize) -> Result<Vec<Record>, BridgeError> {
        let unknown =
            BridgeError::Unknown { what: "deployment", flag: "--deployment", variable: "ECS_BRIDGE_DEPLOYMENT" };
        let deployment = self.deployment.as_ref().ok_or(unknown)?;
        let table = self.table()?;
        let ids = table.ids_since(deployment, since, most).await?;
        let mut records = table.records(&ids).await?;
        let changed = |record: &Record| record.get("changed_at").and_then(Value::as_u64);
        records.sort_by_key(|record| std::cmp::Reverse(changed(record)));
        Ok(records)
    }
}

/// Calls the API by a direct invocation, whose payload is the body, and returns the JSON of its answer.
async fn invoke(
    client: &aws_sdk_lambda::Client,
    name: &str,
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
        url: name.to_owned(),
        source: aws_sdk_lambda::Error::from(error).into(),
    })?;
    let body: Value = answer
        .payload()
        .and_then(|payload| serde_json::from_slice(payload.as_ref()).ok())
        .ok_or_else(|| BridgeError::NotUnderstood(name.to_owned()))?;
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

struct Table {
    name: String,
    client: aws_sdk_dynamodb::Client,
}

impl Table {
    /// The keys of the `due` index, which holds exactly the submissions that have not ended.
    async fn ids_in_due(&self) -> Result<Vec<String>, BridgeError> {
        let scan = self.client.scan().table_name(&self.name).index_name("due");
        let mut items = scan.into_paginator().items().send();
        let mut ids = Vec::new();
        while let Some(item) = items.next().await {
            ids.extend(submission_id(&item.map_err(|error| self.error(error))?));
        }
        Ok(ids)
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
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .index_name(index)
            .key_condition_expression("#partition = :partition")
            .expression_attribute_names("#partition", index)
            .expression_attribute_values(":partition", AttributeValue::S(partition.to_owned()))
            .scan_index_forward(forward);
        self.ids(query, most).await
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
        let mut records = Vec::new();
        for batch in ids.chunks(BATCH) {
            let key = |id: &String| [("submission_id".to_owned(), AttributeValue::S(id.clone()))].into();
            let keys = KeysAndAttributes::builder().set_keys(Some(batch.iter().map(key).collect())).build();
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
        BridgeError::Table { table: self.name.clone(), source: Box::new(error.into()) }
    }
}

/// The key of the launch rate's row, which also names the profiles with a pool.
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
