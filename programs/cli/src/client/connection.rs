//! A bridge that was found, and the values and clients to call it with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_http_client::Connector;

use super::error::ClientError;

/// A client of a bridge.
#[derive(Debug)]
pub struct Client {
    /// The URL of the submit function, if it has one.
    pub(super) url: Option<String>,
    /// The submit function, if it is invoked directly instead of through its URL.
    pub(super) function: Option<(String, aws_sdk_lambda::Client)>,
    pub(super) table: Option<String>,
    pub(super) deployment: Option<String>,
    pub(super) config: SdkConfig,
    /// The endpoint of DynamoDB, if it differs from the AWS endpoint.
    pub(super) dynamodb_url: Option<String>,
    pub(super) connector: Connector,
    /// The outputs of the stack, if the bridge was found through them.
    pub(crate) outputs: BTreeMap<String, String>,
    /// The local stack, if the bridge is one.
    pub(crate) local: Option<LocalStack>,
}

/// The endpoints and folders of a local stack.
#[derive(Clone, Debug)]
pub struct LocalStack {
    /// The endpoint of Lambda.
    pub lambda_url: String,
    /// The endpoint of ECS.
    pub ecs_url: String,
    /// The folder with the output of the containers, if it is kept.
    pub log_dir: Option<PathBuf>,
}

impl Client {
    /// Returns the credentials with which calls are signed.
    pub async fn credentials(&self) -> Result<Credentials, ClientError> {
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| ClientError::Credentials("none is configured".into()))?;
        provider.provide_credentials().await.map_err(|error| ClientError::Credentials(error.into()))
    }

    /// Returns the configuration for other clients of the account.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// Returns the name of the deployment.
    pub fn deployment(&self) -> Result<&str, ClientError> {
        let unknown = ClientError::Missing {
            what: "the name of the deployment",
            flag: "--deployment NAME",
            variable: "ECS_BRIDGE_DEPLOYMENT",
        };
        self.deployment.as_deref().ok_or(unknown)
    }

    /// Returns `true` if the name of the table is known. Some commands work without it.
    pub fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// Returns the user of this machine and the access key, to record who made a change.
    pub async fn caller(&self) -> Result<String, ClientError> {
        let user =
            std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown user".into());
        Ok(format!("{user} ({})", self.credentials().await?.access_key_id()))
    }
}

/// Creates a client of Lambda. Without an `endpoint`, it is that of AWS.
pub fn lambda(config: &SdkConfig, endpoint: Option<String>) -> aws_sdk_lambda::Client {
    let mut config = aws_sdk_lambda::config::Builder::from(config);
    if endpoint.is_some() {
        config.set_endpoint_url(endpoint);
    }
    aws_sdk_lambda::Client::from_conf(config.build())
}
