//! The role sessions of tasks: their credentials, and the identity that signed a request.
//!
//! ECS assumes the role of a task with the task ID as the session name ("Task IAM role" in the ECS Developer Guide). Its
//! agent serves the credentials to the containers of the task.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::{Value, json};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::clock::Millis;
use crate::http::lock;
use crate::rng::Chance;

/// The time for which credentials are valid.
const VALID: Duration = Duration::from_secs(6 * 3600);

/// The maximum difference between the clock of a request and the local clock.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// The sessions of a run, by access key id.
#[derive(Debug)]
pub struct Sessions {
    chance: Chance,
    account: String,
    by_key: Mutex<HashMap<String, Session>>,
}

#[derive(Clone, Debug)]
struct Session {
    task_id: String,
    role_arn: String,
    secret: String,
    /// The session token. The user has none.
    token: Option<String>,
    authorization: String,
}

/// Access key and secret of the user of a local stack.
pub const USER: &str = "local";

impl Sessions {
    /// Creates an empty set of sessions.
    #[must_use]
    pub fn new(chance: Chance, account: String) -> Self {
        Self { chance, account, by_key: Mutex::default() }
    }

    /// Begins the session of a task's role. Returns the authorization token that its containers must send to get its
    /// credentials.
    pub fn begin(&self, task_id: &str, role_arn: &str) -> String {
        let random = |what: &str| self.chance.uuid(what, task_id).replace('-', "");
        let session = Session {
            task_id: task_id.to_owned(),
            role_arn: role_arn.to_owned(),
            secret: random("secret"),
            token: Some(random("session token")),
            authorization: random("authorization"),
        };
        let authorization = session.authorization.clone();
        let key = format!("ASIA{}", random("access key").to_ascii_uppercase().get(..16).unwrap_or_default());
        lock(&self.by_key).insert(key, session);
        authorization
    }

    /// Returns the credentials of a task in the format of ECS's agent, or none if the authorization token differs.
    #[must_use]
    pub fn credentials(&self, task_id: &str, authorization: &str) -> Option<Value> {
        let sessions = lock(&self.by_key);
        let (key, session) = sessions
            .iter()
            .find(|(_, session)| session.task_id == task_id && session.authorization == authorization)?;
        let expires = u64::try_from(VALID.as_millis()).unwrap_or_default();
        Some(json!({
            "RoleArn": session.role_arn, "AccessKeyId": key, "SecretAccessKey": session.secret,
            "Token": session.token, "Expiration": Millis(Millis::now().0.saturating_add(expires)).iso(),
        }))
    }

    /// Returns the identity that signed this request, in the format of a function URL's event. Returns none if the request has
    /// no signature or a wrong one.
    #[must_use]
    pub fn caller(&self, head: &Parts, body: &[u8]) -> Option<Value> {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = text("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| authorization.split(',').find_map(|field| field.trim().strip_prefix(name));
        let mut scope = field("Credential=")?.split('/');
        let (key, _date, region) = (scope.next()?, scope.next()?, scope.next()?);
        let session = if key == USER { self.user() } else { lock(&self.by_key).get(key)?.clone() };
        if text("x-amz-security-token") != session.token.as_deref() {
            return None;
        }
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let at: SystemTime = PrimitiveDateTime::parse(text("x-amz-date")?, format).ok()?.assume_utc().into();
        let now: SystemTime = OffsetDateTime::now_utc().into();
        let off = now.duration_since(at).or_else(|_| at.duration_since(now)).unwrap_or_default();
        let signature = signature(head, body, (key, &session), region, at, field("SignedHeaders=")?)?;
        (off <= SKEW && field("Signature=") == Some(&signature)).then(|| self.identity(key, &session))
    }

    /// Returns the user whose signature submit accepts under `--require-signature`.
    fn user(&self) -> Session {
        Session {
            task_id: USER.into(),
            role_arn: format!("arn:aws:iam::{}:role/{USER}", self.account),
            secret: USER.into(),
            token: None,
            authorization: String::new(),
        }
    }

    fn identity(&self, key: &str, session: &Session) -> Value {
        let role = session.role_arn.rsplit('/').next().unwrap_or_default();
        let unique = format!("AROA{}", self.chance.uuid("role", role).replace('-', "").to_ascii_uppercase());
        let unique = unique.get(..21).unwrap_or_default();
        let Session { task_id, .. } = session;
        json!({
            "accessKey": key, "accountId": self.account, "callerId": format!("{unique}:{task_id}"),
            "cognitoIdentity": null, "principalOrgId": null,
            "userArn": format!("arn:aws:sts::{}:assumed-role/{role}/{task_id}", self.account),
            "userId": format!("{unique}:{task_id}"),
        })
    }
}

/// The signature that this request has if it was signed with the session's credentials.
fn signature(
    head: &Parts,
    body: &[u8],
    (key, session): (&str, &Session),
    region: &str,
    at: SystemTime,
    signed_headers: &str,
) -> Option<String> {
    let credentials = Credentials::new(key, &session.secret, session.token.clone(), None, "session");
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    if head.headers.contains_key("x-amz-content-sha256") {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let parameters =
        v4::SigningParams::builder().identity(&identity).region(region).name("lambda").time(at).settings(settings);
    let parameters = parameters.build().ok()?.into();
    let host = head.headers.get("host")?.to_str().ok()?;
    let url = format!("http://{host}{}", head.uri);
    let headers = signed(&head.headers, signed_headers);
    let headers = headers.iter().map(|(name, value)| (*name, *value));
    let request = SignableRequest::new(head.method.as_str(), url, headers, SignableBody::Bytes(body)).ok()?;
    Some(sign(request, &parameters).ok()?.signature().to_owned())
}

/// Returns the signed headers, without those that signing adds.
fn signed<'a>(headers: &'a HeaderMap, names: &'a str) -> Vec<(&'a str, &'a str)> {
    const ADDED: [&str; 4] = ["host", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
    let names = names.split(';').filter(|name| !ADDED.contains(name));
    names.filter_map(|name| Some((name, headers.get(name)?.to_str().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/team/etl";

    fn sessions() -> Sessions {
        Sessions::new(Chance::new(1), "123456789012".into())
    }

    /// Returns a request that is signed with these credentials.
    fn signed_request(credentials: &Value, body: &[u8], at: SystemTime) -> Parts {
        let text = |name: &str| credentials[name].as_str().unwrap().to_owned();
        let identity =
            Credentials::new(text("AccessKeyId"), text("SecretAccessKey"), Some(text("Token")), None, "test").into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let parameters = v4::SigningParams::builder().identity(&identity).region("us-east-1").name("lambda");
        let parameters = parameters.time(at).settings(settings).build().unwrap().into();
        let url = "http://127.0.0.1:1/v1/poll";
        let headers = [("content-type", "application/json")].into_iter();
        let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(body)).unwrap();
        let signed = sign(signable, &parameters).unwrap().into_parts().0;
        let mut request = Request::post("/v1/poll")
            .header("host", "127.0.0.1:1")
            .header("content-type", "application/json")
            .body(())
            .unwrap();
        for (name, value) in signed.headers() {
            request
                .headers_mut()
                .insert(axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn credentials_require_the_task_authorization() {
        let sessions = sessions();
        let authorization = sessions.begin("one", ROLE);
        let other = sessions.begin("two", ROLE);
        assert!(sessions.credentials("one", &authorization).is_some());
        assert!(sessions.credentials("one", &other).is_none());
        assert!(sessions.credentials("one", "").is_none());
        assert!(sessions.credentials("two", &authorization).is_none());
    }

    #[test]
    fn signed_request_names_role_and_task() {
        let sessions = sessions();
        let authorization = sessions.begin("task-1", ROLE);
        let credentials = sessions.credentials("task-1", &authorization).unwrap();
        let head = signed_request(&credentials, b"{}", SystemTime::now());
        let caller = sessions.caller(&head, b"{}").unwrap();
        assert_eq!(caller["userArn"], "arn:aws:sts::123456789012:assumed-role/etl/task-1");
        assert_eq!(caller["accountId"], "123456789012");
    }

    #[test]
    fn signature_rejects_changed_body_secret_or_time() {
        let sessions = sessions();
        let authorization = sessions.begin("task-1", ROLE);
        let credentials = sessions.credentials("task-1", &authorization).unwrap();
        let now = SystemTime::now();
        assert!(sessions.caller(&signed_request(&credentials, b"{}", now), b"{ }").is_none());
        let hour_ago = now - Duration::from_secs(3600);
        assert!(sessions.caller(&signed_request(&credentials, b"{}", hour_ago), b"{}").is_none());
        let mut guessed = credentials.clone();
        guessed["SecretAccessKey"] = "guessed".into();
        assert!(sessions.caller(&signed_request(&guessed, b"{}", now), b"{}").is_none());
        let mut head = signed_request(&credentials, b"{}", now);
        head.headers.remove("authorization");
        assert!(sessions.caller(&head, b"{}").is_none());
    }
}
