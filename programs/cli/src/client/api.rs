//! The HTTP API of a bridge, and the same requests by direct invocation.

use aws_credential_types::Credentials;
use aws_sdk_lambda::primitives::Blob;
use serde_json::{Value, json};

use super::connection::Client;
use super::error::ClientError;
use super::signing::{CALL_TIMEOUT, unsigned};
use crate::record::Record;

/// The health of a deployment.
#[derive(Debug)]
pub struct Health {
    /// The response of the API.
    pub body: Value,
    /// The time of AWS, in epoch milliseconds, if it is known.
    pub date: Option<i64>,
}

impl Client {
    /// Calls the API and returns the JSON of its response.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        if let Some((name, client)) = &self.function {
            let endpoint = self.local.as_ref().map(|local| local.lambda_url.as_str());
            return invoke(client, name, endpoint, path, body).await;
        }
        let url = self.address(path)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = self.send(self.signed(method, &url, body, "lambda").await?, &url).await?;
        let parsed = serde_json::from_slice::<Value>(&response.body);
        if response.status == 200 {
            return parsed.map_err(|_| ClientError::UnexpectedResponse(url));
        }
        Err(rejection(response.status, parsed.unwrap_or_default()))
    }

    /// Returns the health of the deployment, also if a check fails.
    pub async fn health(&self) -> Result<Health, ClientError> {
        const PATH: &str = "/v1/health";
        if self.function.is_some() {
            return Ok(Health { body: self.call("GET", PATH, None).await?, date: None });
        }
        let url = self.address(PATH)?;
        let response = self.send(self.signed("GET", &url, String::new(), "lambda").await?, &url).await?;
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        // The checks of a 503 response are more detailed than its error.
        if response.status != 200 && body.get("checks").is_none() {
            return Err(rejection(response.status, body));
        }
        Ok(Health { body, date: response.date })
    }

    /// Calls the API without a signature, or with one of a wrong secret. Returns status and body.
    pub async fn call_unauthorized(&self, path: &str, wrong_secret: bool) -> Result<(u16, String), ClientError> {
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
                .map_err(|source| ClientError::Unreachable { url: url.clone(), source })?
        };
        let response = self.send(request, &url).await?;
        Ok((response.status, String::from_utf8_lossy(&response.body).into_owned()))
    }

    /// Describes these subnets. Returns the error of EC2, if there is one.
    ///
    /// The request is built here because the SDK of EC2 is larger than all other SDKs together.
    pub async fn describe_subnets(&self, ids: &[&str]) -> Result<Option<String>, ClientError> {
        let unknown = ClientError::Missing { what: "the AWS Region", flag: "--region REGION", variable: "AWS_REGION" };
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

    /// Returns the URL of a path of the API.
    fn address(&self, path: &str) -> Result<String, ClientError> {
        let unknown =
            ClientError::Missing { what: "the URL of the bridge", flag: "--url URL", variable: "ECS_BRIDGE_URL" };
        Ok(format!("{}{path}", self.url.as_ref().ok_or(unknown)?))
    }

    /// Returns the record of a submission from the API.
    pub async fn record(&self, id: &str) -> Result<Record, ClientError> {
        let path = format!("/v1/submissions/{id}");
        match self.call("GET", &path, None).await? {
            Value::Object(record) => Ok(record),
            _ => Err(ClientError::UnexpectedResponse(path)),
        }
    }
}

/// Calls the API by direct invocation. The payload is the body, and the result the JSON of the response.
async fn invoke(
    client: &aws_sdk_lambda::Client,
    name: &str,
    endpoint: Option<&str>,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, ClientError> {
    let payload = match (path, body) {
        (_, Some(body)) => body.clone(),
        ("/v1/health", None) => json!({"health": true}),
        (_, None) => json!({"submission_id": path.rsplit('/').next()}),
    };
    let request = client.invoke().function_name(name).payload(Blob::new(payload.to_string())).send();
    let answer = tokio::time::timeout(CALL_TIMEOUT, request).await;
    let answer = answer.map_err(|_| ClientError::TimedOut(name.to_owned()))?;
    let answer = answer.map_err(|error| ClientError::Unreachable {
        url: format!("the function \"{name}\"{}", endpoint.map(|url| format!(" at {url}")).unwrap_or_default()),
        source: aws_sdk_lambda::Error::from(error).into(),
    })?;
    let body: Value = answer
        .payload()
        .and_then(|payload| serde_json::from_slice(payload.as_ref()).ok())
        .ok_or_else(|| ClientError::UnexpectedResponse(name.to_owned()))?;
    if answer.function_error().is_none() {
        return Ok(body);
    }
    let text = |member: &str| body.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (text("errorType"), text("errorMessage"));
    // The status of the HTTP API. An error without such a code, such as a timeout, may be temporary.
    let status = match code.as_str() {
        "not_found" => 404,
        "unavailable" => 503,
        "too_large" => 413,
        "bad_request" => 400,
        "unprocessable" => 422,
        _ => 502,
    };
    Err(ClientError::Rejected { status, code, message, request_id: None })
}

/// Returns the error of a response, from the bridge or from Lambda.
fn rejection(status: u16, body: Value) -> ClientError {
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let message = text("/error/message").or_else(|| text("/Message")).or_else(|| text("/message"));
    ClientError::Rejected {
        status,
        code: text("/error/code").unwrap_or_else(|| "no code".into()),
        message: message.unwrap_or_else(|| "the call was refused".into()),
        request_id: text("/request_id"),
    }
}

/// Returns the domain of the AWS endpoints in a Region, as in botocore's `partitions.json`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_domain_follows_the_aws_partition() {
        assert_eq!([domain("cn-north-1"), domain("cn-northwest-1")], ["amazonaws.com.cn"; 2]);
        assert_eq!([domain("eu-west-1"), domain("us-gov-west-1"), domain("us-east-1")], ["amazonaws.com"; 3]);
        assert_eq!(domain("us-iso-east-1"), "c2s.ic.gov");
        assert_eq!(domain("us-isob-east-1"), "sc2s.sgov.gov");
        assert_eq!(domain("eusc-de-east-1"), "amazonaws.eu");
    }

    #[test]
    fn error_message_is_read_from_bridge_or_lambda() {
        let body = json!({"error": {"code": "too_large", "message": "too much"}, "request_id": "r"});
        assert_eq!(rejection(413, body).to_string(), "too much (413, too_large, request r)");
        assert_eq!(rejection(403, json!({"Message": "Forbidden"})).to_string(), "Forbidden (403, no code)");
    }
}
