//! The configuration: read once, with all errors reported together.

use std::time::Duration;

use aws_credential_types::Credentials;

use crate::api::Endpoint;
use crate::aws::Target;
use crate::credentials::Source;

/// The variables that RunTask sets for this program. Commands do not receive them.
pub const OWN_VARIABLES: [&str; 8] = [
    "ECS_BRIDGE_RUNNER_API_URL",
    "ECS_BRIDGE_RUNNER_API_FUNCTION",
    "ECS_BRIDGE_RUNNER_ID",
    "ECS_BRIDGE_RUNNER_TOKEN",
    "ECS_BRIDGE_POLL_INTERVAL_MS",
    "ECS_BRIDGE_COMMANDS_PER_CONTAINER",
    "ECS_BRIDGE_ZYGOTE",
    "ECS_BRIDGE_DOORBELL_URL",
];

const DEFAULT_POLL_INTERVAL: Duration = Duration::from_millis(1000);
/// The path of Lambda's Invoke API.
const INVOKE: &str = "/2015-03-31/functions";

/// The configuration. It holds secrets, so it has no `Debug`.
pub struct Config {
    /// The address of the runner API.
    pub endpoint: Endpoint,
    /// The source of credentials.
    pub credentials: Source,
    /// The runner's id in the bridge's table.
    pub runner_id: String,
    /// The runner's secret.
    pub token: String,
    /// The first delay after a failed call. Later delays double.
    pub poll_interval: Duration,
    /// The URL of the queue that announces new submissions, and the SQS address.
    pub doorbell: Option<(String, Target)>,
    /// The zygote's program and arguments.
    pub zygote: Option<Vec<String>>,
}

/// The cause of an invalid configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems {
    /// `true` if only the credentials are missing.
    pub credentials_only: bool,
    /// One message for each problem.
    pub messages: Vec<String>,
}

impl Config {
    /// Reads the configuration. `zygote` is the command line's value, which takes precedence over the environment's.
    ///
    /// # Errors
    /// If any value is invalid. All problems are reported together.
    pub fn read(variable: impl Fn(&str) -> Option<String>, zygote: Option<String>) -> Result<Self, Problems> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut messages = Vec::new();
        let mut required = |name: &str| {
            variable(name).unwrap_or_else(|| {
                messages.push(format!("{name} is not set; the bridge sets it on the containers of a pool"));
                String::new()
            })
        };
        let runner_id = required("ECS_BRIDGE_RUNNER_ID");
        let token = required("ECS_BRIDGE_RUNNER_TOKEN");
        let poll_interval = match variable("ECS_BRIDGE_POLL_INTERVAL_MS").map(|value| value.parse::<u32>()) {
            None => DEFAULT_POLL_INTERVAL,
            Some(Ok(milliseconds)) if milliseconds > 0 => Duration::from_millis(milliseconds.into()),
            Some(_) => {
                messages.push("ECS_BRIDGE_POLL_INTERVAL_MS is not a positive number of milliseconds".into());
                DEFAULT_POLL_INTERVAL
            }
        };
        let zygote = zygote.or_else(|| variable("ECS_BRIDGE_ZYGOTE"));
        let zygote = zygote.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let endpoint = endpoint(&variable).map_err(|message| messages.push(message)).ok();
        let doorbell = endpoint.as_ref().and_then(|endpoint| doorbell(&variable, endpoint).transpose()).transpose();
        let doorbell = doorbell.unwrap_or_else(|message| {
            messages.push(message);
            None
        });
        let credentials = source(&variable);
        let credentials_only = messages.is_empty();
        match (endpoint, credentials) {
            (Some(endpoint), Some(credentials)) if credentials_only => Ok(Self {
                endpoint,
                credentials,
                runner_id,
                token,
                poll_interval,
                doorbell,
                zygote: zygote.filter(|words| !words.is_empty()),
            }),
            (_, credentials) => {
                if credentials.is_none() {
                    messages.push(
                        "no AWS credentials: the task definition needs a task role (ECS then sets \
                         AWS_CONTAINER_CREDENTIALS_RELATIVE_URI)"
                            .into(),
                    );
                }
                Err(Problems { credentials_only, messages })
            }
        }
    }
}

/// Returns the function URL, or Lambda's Invoke API for a named function.
fn endpoint(variable: &impl Fn(&str) -> Option<String>) -> Result<Endpoint, String> {
    let configured_region = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let no_region = || "cannot find the Region: set AWS_REGION".to_owned();
    match (variable("ECS_BRIDGE_RUNNER_API_URL"), variable("ECS_BRIDGE_RUNNER_API_FUNCTION")) {
        (Some(_), Some(_)) => Err("ECS_BRIDGE_RUNNER_API_URL and ECS_BRIDGE_RUNNER_API_FUNCTION are both set".into()),
        (None, None) => {
            Err("neither ECS_BRIDGE_RUNNER_API_URL nor ECS_BRIDGE_RUNNER_API_FUNCTION is set; the bridge sets one of \
                             them on the containers of a pool"
                .into())
        }
        (Some(url), None) => {
            let host = host(&url).ok_or_else(|| "ECS_BRIDGE_RUNNER_API_URL is not an http or https URL".to_owned())?;
            // The Region in a function URL is certain, whereas AWS_REGION may be set for the commands.
            let region = region_of(&host).or_else(configured_region).ok_or_else(no_region)?;
            let url = format!("{}/v1/poll", url.trim_end_matches('/'));
            Ok(Endpoint::FunctionUrl(Target { url, region, service: "lambda" }))
        }
        (None, Some(function)) => {
            // arn:aws:lambda:REGION:ACCOUNT:function:NAME
            let of_arn = function.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)).map(str::to_owned);
            let region = of_arn.or_else(configured_region).ok_or_else(no_region)?;
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let base =
                variable("AWS_ENDPOINT_URL_LAMBDA").unwrap_or_else(|| format!("https://lambda.{region}.{suffix}"));
            if host(&base).is_none() {
                return Err("AWS_ENDPOINT_URL_LAMBDA is not an http or https URL".into());
            }
            let name = function.replace(':', "%3A");
            let url = format!("{}{INVOKE}/{name}/invocations", base.trim_end_matches('/'));
            Ok(Endpoint::Invoke(Target { url, region, service: "lambda" }))
        }
    }
}

/// Returns the doorbell's queue if the bridge set one. It belongs to the same stack, and so to the same Region.
fn doorbell(
    variable: &impl Fn(&str) -> Option<String>,
    endpoint: &Endpoint,
) -> Result<Option<(String, Target)>, String> {
    let Some(queue_url) = variable("ECS_BRIDGE_DOORBELL_URL") else { return Ok(None) };
    let (name, url) = match variable("AWS_ENDPOINT_URL_SQS") {
        Some(url) => ("AWS_ENDPOINT_URL_SQS", url),
        None => ("ECS_BRIDGE_DOORBELL_URL", queue_url.clone()),
    };
    let uri = url.parse::<ureq::http::Uri>().ok();
    let origin = uri.and_then(|uri| Some(format!("{}://{}/", uri.scheme_str()?, uri.authority()?)));
    let url = origin.filter(|_| host(&url).is_some()).ok_or_else(|| format!("{name} is not an http or https URL"))?;
    let (Endpoint::FunctionUrl(Target { region, .. }) | Endpoint::Invoke(Target { region, .. })) = endpoint;
    Ok(Some((queue_url, Target { url, region: region.clone(), service: "sqs" })))
}

fn host(url: &str) -> Option<String> {
    let uri = url.parse::<ureq::http::Uri>().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then(|| uri.host().map(str::to_owned))?
}

/// Parses the Region of `ID.lambda-url.REGION.on.aws`.
fn region_of(host: &str) -> Option<String> {
    let mut labels = host.split('.').skip(1);
    (labels.next() == Some("lambda-url")).then(|| labels.next().map(str::to_owned))?
}

/// Returns the source of credentials. ECS's endpoint takes precedence over keys in the environment. The keys may be
/// meant for the commands, and the runner API accepts only the role of the runner's own task.
fn source(variable: &impl Fn(&str) -> Option<String>) -> Option<Source> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("http://169.254.170.2{path}"));
    if let Some(url) = relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        return Some(Source::Container {
            url,
            authorization: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            authorization_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(Into::into),
        });
    }
    let key = variable("AWS_ACCESS_KEY_ID")?;
    let secret = variable("AWS_SECRET_ACCESS_KEY")?;
    Some(Source::Fixed(Credentials::new(key, secret, variable("AWS_SESSION_TOKEN"), None, "environment")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: [(&str, &str); 4] = [
        ("ECS_BRIDGE_RUNNER_API_URL", "https://abc.lambda-url.eu-central-1.on.aws/"),
        ("ECS_BRIDGE_RUNNER_ID", "runner-1"),
        ("ECS_BRIDGE_RUNNER_TOKEN", "secret"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1"),
    ];

    fn read(variables: &[(&str, &str)]) -> Result<Config, Problems> {
        let variable =
            |name: &str| variables.iter().rev().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        Config::read(variable, None)
    }

    fn with(more: &[(&'static str, &'static str)]) -> Result<Config, Problems> {
        read(&[&COMPLETE[..], more].concat())
    }

    #[test]
    fn function_url_region_overrides_the_environment() {
        let config = with(&[("AWS_REGION", "us-east-1")]).ok().unwrap();
        let url = "https://abc.lambda-url.eu-central-1.on.aws/v1/poll".to_owned();
        assert_eq!(
            config.endpoint,
            Endpoint::FunctionUrl(Target { url, region: "eu-central-1".into(), service: "lambda" })
        );
    }

    #[test]
    fn function_is_invoked_in_its_arn_region() {
        let arn = "arn:aws-cn:lambda:cn-north-1:123456789012:function:runner-api";
        let config = with(&[("ECS_BRIDGE_RUNNER_API_URL", ""), ("ECS_BRIDGE_RUNNER_API_FUNCTION", arn)]).ok().unwrap();
        let path = "2015-03-31/functions/arn%3Aaws-cn%3Alambda%3Acn-north-1%3A123456789012%3Afunction%3Arunner-api/invocations";
        let url = format!("https://lambda.cn-north-1.amazonaws.com.cn/{path}");
        assert_eq!(config.endpoint, Endpoint::Invoke(Target { url, region: "cn-north-1".into(), service: "lambda" }));
    }

    #[test]
    fn task_role_overrides_keys_in_the_environment() {
        let config = with(&[("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "x")]).ok().unwrap();
        assert!(
            matches!(config.credentials, Source::Container { url, .. } if url == "http://169.254.170.2/v2/credentials/1")
        );
    }

    #[test]
    fn config_problems_are_reported_together() {
        let problems = read(&[("ECS_BRIDGE_POLL_INTERVAL_MS", "soon")]).err().unwrap();
        assert!(!problems.credentials_only);
        let said = problems.messages.join("\n");
        for word in ["RUNNER_ID", "RUNNER_TOKEN", "POLL_INTERVAL_MS", "RUNNER_API_URL", "task role"] {
            assert!(said.contains(word), "{word} is missing in:\n{said}");
        }
    }

    #[test]
    fn missing_credentials_alone_are_distinguished() {
        assert!(read(&COMPLETE[..3]).err().unwrap().credentials_only);
    }

    #[test]
    fn url_without_region_requires_one_from_environment() {
        let url = ("ECS_BRIDGE_RUNNER_API_URL", "http://127.0.0.1:8080");
        assert!(with(&[url]).err().unwrap().messages[0].contains("AWS_REGION"));
        assert!(with(&[url, ("AWS_REGION", "eu-west-1")]).is_ok());
    }

    #[test]
    fn doorbell_is_called_at_its_queue_origin() {
        let queue =
            ("ECS_BRIDGE_DOORBELL_URL", "https://sqs.eu-central-1.amazonaws.com/123456789012/prod-pool-etl-0a1b");
        let target = |url: &str| Target { url: url.into(), region: "eu-central-1".into(), service: "sqs" };
        let of = |variables: &[_]| read(&[&COMPLETE[..], variables].concat()).map(|config| config.doorbell);
        let at = |url| Ok(Some((queue.1.to_owned(), target(url))));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[queue]), at("https://sqs.eu-central-1.amazonaws.com/"));
        assert_eq!(of(&[queue, ("AWS_ENDPOINT_URL_SQS", "http://10.0.0.7:4566/x")]), at("http://10.0.0.7:4566/"));
        let problems = of(&[("ECS_BRIDGE_DOORBELL_URL", "prod-pool-etl")]).unwrap_err();
        assert_eq!(problems.messages, ["ECS_BRIDGE_DOORBELL_URL is not an http or https URL"]);
    }
}
