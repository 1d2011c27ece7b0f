//! Finding a bridge: flags, the file of a local stack, the outputs of a stack, and the environment.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_http_client::{Builder, Connector, tls};
use clap::Args;
use ecs_bridge_local::{default_ready_file, is_starting};
use serde::Deserialize;

use super::connection::{Client, LocalStack, lambda};
use super::error::ClientError;

/// The options that name the bridge. Values may also come from the file of a local stack, or from the environment.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Bridge")]
pub struct BridgeOptions {
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

/// Access key and secret of a local stack.
const LOCAL_KEY: &str = "local";

impl BridgeOptions {
    /// Returns `true` if flags or the environment name a deployed bridge. The default local stack is not used then.
    fn names_deployment(&self) -> bool {
        let flags = [&self.stack, &self.url, &self.function, &self.table];
        let variables = ["ECS_BRIDGE_STACK", "ECS_BRIDGE_URL", "ECS_BRIDGE_FUNCTION", "ECS_BRIDGE_TABLE"];
        flags.into_iter().any(Option::is_some)
            || variables.into_iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    }

    /// Finds the bridge. Flags take precedence over the file of a local stack. The file takes precedence over the outputs
    /// of the stack, and those over the environment.
    pub async fn find(&self) -> Result<Client, ClientError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let ready = match self.local.clone().or_else(|| variable("ECS_BRIDGE_LOCAL").map(PathBuf::from)) {
            Some(path) => ReadyFile::wait(&path, Duration::from_secs(2)).await?,
            None if self.names_deployment() => ReadyFile::default(),
            None => match default_ready_file() {
                Some(path) => match ReadyFile::wait(&path, Duration::from_millis(500)).await {
                    Err(ClientError::ReadyFile { source, .. }) if source.kind() == ErrorKind::NotFound => {
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
        // A local stack accepts one access key, and is in no CloudFormation stack. A named stack behind a tunnel, or in an
        // emulator of AWS, is called with the caller's credentials.
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
            // The deployment has no function URLs.
            function = function.or(ready.submit_function).or_else(|| outputs.get("SubmitFunctionName").cloned());
        }
        let lambda_url = local.as_ref().map(|local| local.lambda_url.clone());
        Ok(Client {
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
    /// Reads the file. If it does not exist, waits while a local stack starts, and up to `timeout` for one to begin to
    /// start.
    async fn wait(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(path);
            let is_absent = text.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            if is_absent && (is_starting(path) || began.elapsed() < timeout) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let parsed = text.and_then(|text| serde_json::from_str(&text).map_err(Into::into));
            return parsed.map_err(|source| ClientError::ReadyFile { path: path.to_owned(), source });
        }
    }
}

/// Returns an error, because this build cannot read stacks.
#[cfg(not(feature = "account"))]
async fn outputs(_: &SdkConfig, stack: &str) -> Result<BTreeMap<String, String>, ClientError> {
    Err(ClientError::NoAccount(stack.to_owned()))
}

/// Returns the outputs of a stack.
#[cfg(feature = "account")]
async fn outputs(config: &SdkConfig, stack: &str) -> Result<BTreeMap<String, String>, ClientError> {
    let client = aws_sdk_cloudformation::Client::new(config);
    let answer = client.describe_stacks().stack_name(stack).send().await;
    let answer = answer
        .map_err(|error| ClientError::Stack(stack.to_owned(), aws_sdk_cloudformation::Error::from(error).into()))?;
    let outputs = answer.stacks().iter().flat_map(|stack| stack.outputs());
    let outputs: BTreeMap<_, _> = outputs
        .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())))
        .collect();
    if !outputs.contains_key("TableName") {
        return Err(ClientError::NoOutput(stack.to_owned(), "TableName"));
    }
    Ok(outputs)
}

/// Parses the Region of `https://ID.lambda-url.REGION.on.aws`.
fn region_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once(".lambda-url.")?;
    rest.split('.').next().map(str::to_owned)
}

/// Returns `true` for an HTTP URL at a loopback address.
fn is_local(url: &str) -> bool {
    let host = url.strip_prefix("http://").unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_is_parsed_from_function_url() {
        assert_eq!(region_of("https://abc.lambda-url.eu-central-1.on.aws/").as_deref(), Some("eu-central-1"));
        assert_eq!(region_of("http://127.0.0.1:8080"), None);
    }

    #[test]
    fn plain_loopback_addresses_are_local() {
        assert!(is_local("http://127.0.0.1:8080/x") && is_local("http://localhost") && is_local("http://[::1]:1"));
        for other in ["https://127.0.0.1", "http://127.0.0.1.example.org", "http://10.0.0.1"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
