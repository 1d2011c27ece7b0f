//! The errors of the client.

use std::path::PathBuf;

use thiserror::Error;

/// The cause of an error, of any type.
pub type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// The cause of a failed call to the bridge.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A required value is not set.
    #[error(
        "cannot find {what}: pass --stack NAME or {flag}, or set {variable}; for a local stack, start `ecs-bridge local` or pass \
         --local FILE"
    )]
    Missing {
        /// The value that is missing.
        what: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Its environment variable.
        variable: &'static str,
    },
    /// The ready file cannot be read.
    #[error("cannot read the file of the local stack: \"{}\"{}", path.display(), if source.kind() == std::io::ErrorKind::NotFound { "; is `ecs-bridge local` running?" } else { "" })]
    ReadyFile {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The stack cannot be read.
    #[error("cannot read the outputs of the stack \"{0}\"")]
    Stack(String, #[source] Boxed),
    /// This build cannot read stacks.
    #[cfg(not(feature = "account"))]
    #[error(
        "cannot read the stack \"{0}\": this program was built without the feature `account`; build it with `make programs`"
    )]
    NoAccount(String),
    /// The stack does not have this output.
    #[error("the stack \"{0}\" has no output {1}: pass the --stack of a bridge of this version")]
    NoOutput(String, &'static str),
    /// No credentials were found.
    #[error("cannot find AWS credentials: run `aws sso login`, or pass --aws-profile")]
    Credentials(#[source] Boxed),
    /// The call failed without a response.
    #[error("cannot reach {url}")]
    Unreachable {
        /// The URL of the call.
        url: String,
        /// The cause.
        #[source]
        source: Boxed,
    },
    /// The call timed out.
    #[error("the call of {0} timed out; try again")]
    TimedOut(String),
    /// The bridge or Lambda rejected the call.
    #[error("{message} ({status}, {code}{})", request_id.as_ref().map(|id| format!(", request {id}")).unwrap_or_default())]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The error code.
        code: String,
        /// The message.
        message: String,
        /// The id of the request in the log of the function.
        request_id: Option<String>,
    },
    /// The response is not one of the API.
    #[error("unexpected response of {0}: check that it is the URL of a submit function")]
    UnexpectedResponse(String),
    /// DynamoDB rejected the call, or cannot be reached.
    #[error("cannot read the table \"{table}\"{}", endpoint.as_ref().map(|url| format!(" at {url}")).unwrap_or_default())]
    Table {
        /// The name of the table.
        table: String,
        /// The endpoint, if it differs from the AWS endpoint.
        endpoint: Option<String>,
        /// The cause.
        #[source]
        source: Box<aws_sdk_dynamodb::Error>,
    },
}

impl ClientError {
    /// Returns `true` if a retry may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut(_) => true,
            Self::Rejected { status, .. } => *status >= 500 || *status == 429,
            Self::Missing { .. }
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

    /// Returns `true` if the submission or path does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Rejected { status: 404, .. })
    }
}
