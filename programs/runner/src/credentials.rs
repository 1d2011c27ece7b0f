//! AWS credentials: from ECS's endpoint, or fixed ones for local use.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use serde::Deserialize;

/// The cache lifetime of fetched credentials. ECS rotates them long before they expire.
const KEPT: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(5);

/// The source of credentials.
#[derive(Clone)]
pub enum Source {
    /// The endpoint that ECS gives to a container with a task role.
    Container {
        /// The endpoint's URL.
        url: String,
        /// The value of the `Authorization` header.
        authorization: Option<String>,
        /// A file with that value, read at each fetch.
        authorization_file: Option<PathBuf>,
    },
    /// Keys from the environment.
    Fixed(Credentials),
}

/// Fetches and caches credentials.
pub struct Provider {
    source: Source,
    agent: ureq::Agent,
    kept: Option<(Credentials, Instant)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fetched {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

impl Provider {
    /// Creates a provider with an empty cache.
    pub fn new(source: Source) -> Self {
        // A proxy is never used for link-local addresses.
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None).max_redirects(0);
        Self { source, agent: config.build().new_agent(), kept: None }
    }

    /// Returns credentials for the next call.
    ///
    /// # Errors
    /// If the endpoint returned none.
    pub fn credentials(&mut self, now: Instant) -> Result<Credentials, String> {
        let (url, authorization, file) = match &self.source {
            Source::Fixed(credentials) => return Ok(credentials.clone()),
            Source::Container { url, authorization, authorization_file } => (url, authorization, authorization_file),
        };
        if let Some((credentials, fetched)) = &self.kept
            && now.duration_since(*fetched) < KEPT
        {
            return Ok(credentials.clone());
        }
        let authorization = match file {
            Some(file) => {
                let read = std::fs::read_to_string(file);
                Some(read.map_err(|error| format!("{}: {error}", file.display()))?.trim().to_owned())
            }
            None => authorization.clone(),
        };
        let mut request = self.agent.get(url);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let body = request.call().and_then(|mut response| response.body_mut().read_to_vec());
        let body = body.map_err(|error| format!("{url}: {error}"))?;
        let fetched: Fetched =
            serde_json::from_slice(&body).map_err(|_| format!("{url}: the response contains no credentials"))?;
        let credentials =
            Credentials::new(fetched.access_key_id, fetched.secret_access_key, fetched.token, None, "container");
        self.kept = Some((credentials.clone(), now));
        Ok(credentials)
    }

    /// Makes the next call fetch credentials again, because these were rejected.
    pub fn forget(&mut self) {
        self.kept = None;
    }
}
