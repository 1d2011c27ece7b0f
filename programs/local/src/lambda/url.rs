//! A function URL: converts HTTP requests to events in payload format 2.0, and the function's result to a response. The URL
//! of submit checks signatures only under `--require-signature`, because every local process may call it. The URL of
//! runner-api always checks them, and passes on the identity that signed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::function::{MAX_PAYLOAD, Outcome};
use super::service::Lambda;
use crate::clock::Millis;
use crate::http;
use crate::sessions::Sessions;

/// Returns the router of a function URL, for all paths and methods.
///
/// With `sessions`, a request that none of them signed is rejected with 403, as by Lambda.
pub fn router(lambda: Arc<Lambda>, function: String, sessions: Option<Arc<Sessions>>) -> Router {
    Router::new()
        .fallback(call)
        // Lambda limits the size of the event, which is checked below.
        .layer(DefaultBodyLimit::max(4 * MAX_PAYLOAD))
        .with_state(Url { lambda, function: function.into(), sessions })
}

#[derive(Clone)]
struct Url {
    lambda: Arc<Lambda>,
    function: Arc<str>,
    sessions: Option<Arc<Sessions>>,
}

async fn call(State(Url { lambda, function, sessions }): State<Url>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 4 * MAX_PAYLOAD).await else { return too_large() };
    let mut event = event(&head, &body, &lambda.request_id(), Millis::now());
    if let Some(sessions) = sessions {
        let Some(iam) = sessions.caller(&head, &body) else {
            return http::json(StatusCode::FORBIDDEN, &json!({"Message": "Forbidden"}));
        };
        if let Some(context) = event.get_mut("requestContext").and_then(Value::as_object_mut) {
            context.insert("accountId".into(), iam.get("accountId").cloned().unwrap_or_default());
            context.insert("authorizer".into(), json!({"iam": iam}));
        }
    }
    let event = event.to_string();
    if event.len() > MAX_PAYLOAD {
        return too_large();
    }
    match lambda.invoke(&function, event.into()).await {
        Ok((request_id, Outcome::Answer(payload))) => {
            let mut answer = answer(&payload).unwrap_or_else(bad_gateway);
            http::set_header(&mut answer, "x-amzn-requestid", &request_id);
            answer
        }
        Ok((request_id, Outcome::FunctionError(_))) => {
            let mut answer = bad_gateway();
            http::set_header(&mut answer, "x-amzn-requestid", &request_id);
            answer
        }
        Err(_) => http::json(StatusCode::NOT_FOUND, &json!({"Message": null})),
    }
}

fn too_large() -> Response<Body> {
    http::json(StatusCode::PAYLOAD_TOO_LARGE, &json!({"Message": "Request Too Long"}))
}

fn bad_gateway() -> Response<Body> {
    http::bytes(StatusCode::BAD_GATEWAY, "application/json", Bytes::from_static(b"Internal Server Error"))
}

fn event(head: &axum::http::request::Parts, body: &Bytes, request_id: &str, now: Millis) -> Value {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    let mut cookies = Vec::new();
    for (name, value) in &head.headers {
        // Cookies have a member of their own and are not among the headers.
        if name == header::COOKIE {
            cookies.extend(text(value).split(';').map(|cookie| cookie.trim().to_owned()));
            continue;
        }
        let joined = headers.entry(name.as_str()).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&text(value));
    }
    let domain = headers.get("host").cloned().unwrap_or_default();
    let path = head.uri.path();
    let mut event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path,
        "rawQueryString": head.uri.query().unwrap_or_default(),
        "requestContext": {
            "accountId": "anonymous", "apiId": "local", "domainName": domain, "domainPrefix": "local",
            "http": {"method": head.method.as_str(), "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                     "userAgent": headers.get("user-agent").cloned().unwrap_or_default()},
            "requestId": request_id, "routeKey": "$default", "stage": "$default",
            "time": now.common_log(), "timeEpoch": now.0,
        },
        "headers": headers,
        "isBase64Encoded": false,
    });
    let fields = event.as_object_mut().into_iter().next();
    if let Some(fields) = fields {
        if !cookies.is_empty() {
            fields.insert("cookies".into(), json!(cookies));
        }
        let parameters = query_parameters(head);
        if !parameters.is_empty() {
            fields.insert("queryStringParameters".into(), Value::Object(parameters));
        }
        if !body.is_empty() {
            let plain = std::str::from_utf8(body).ok().filter(|_| is_text(&head.headers));
            fields.insert("isBase64Encoded".into(), Value::Bool(plain.is_none()));
            fields.insert("body".into(), plain.map_or_else(|| BASE64.encode(body), str::to_owned).into());
        }
    }
    event
}

/// Joins several values of one name by commas.
fn query_parameters(head: &axum::http::request::Parts) -> Map<String, Value> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&head.uri).map(|Query(pairs)| pairs).unwrap_or_default();
    let mut joined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        joined.entry(name).or_default().push(value);
    }
    joined.into_iter().map(|(name, values)| (name, values.join(",").into())).collect()
}

/// Returns true if Lambda passes a body of this content type as text. It encodes other bodies in base64.
fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || matches!(kind.as_str(), "application/json" | "application/javascript" | "application/xml")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// The result of a function in payload format 2.0.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Structured {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// Returns the HTTP response for a function's result, or none if Lambda would consider the result malformed.
fn answer(payload: &Bytes) -> Option<Response<Body>> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    if value.get("statusCode").is_none() {
        // Without a status the payload is the body.
        let body = value.as_str().map_or_else(|| payload.clone(), |text| Bytes::from(text.to_owned()));
        return Some(http::bytes(StatusCode::OK, "application/json", body));
    }
    let structured: Structured = serde_json::from_value(value).ok()?;
    let body = structured.body.unwrap_or_default();
    let body = if structured.is_base64_encoded == Some(true) { BASE64.decode(body).ok()? } else { body.into_bytes() };
    let status = StatusCode::from_u16(structured.status_code).ok()?;
    let mut answer = http::bytes(status, "application/json", body.into());
    let headers = answer.headers_mut();
    for (name, value) in structured.headers.unwrap_or_default() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        headers.insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    for cookie in structured.cookies.unwrap_or_default() {
        headers.append(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_of(request: axum::http::request::Builder, body: &'static [u8]) -> Value {
        let (head, ()) = request.body(()).unwrap().into_parts();
        event(&head, &Bytes::from_static(body), "id", Millis(1_597_428_383_679))
    }

    #[test]
    fn json_body_is_text_and_binary_is_base64() {
        let json =
            event_of(Request::builder().uri("/v1").header("content-type", "application/json; charset=utf-8"), b"{}");
        assert_eq!((&json["body"], &json["isBase64Encoded"]), (&json!("{}"), &json!(false)));
        let bytes = event_of(Request::builder().uri("/v1").header("content-type", "application/octet-stream"), b"{}");
        assert_eq!((&bytes["body"], &bytes["isBase64Encoded"]), (&json!("e30="), &json!(true)));
        let broken = event_of(Request::builder().uri("/v1").header("content-type", "application/json"), b"\xff");
        assert_eq!(broken["isBase64Encoded"], true);
    }

    #[test]
    fn repeated_values_are_joined_and_cookies_separate() {
        let request = Request::builder().uri("/a%20b?x=1&y=%2B&x=2").header("X-A", "1").header("x-a", "2");
        let event = event_of(request.header("cookie", "a=1; b=2"), b"");
        assert_eq!(event["headers"], json!({"x-a": "1,2"}));
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert_eq!(event["queryStringParameters"], json!({"x": "1,2", "y": "+"}));
        assert_eq!(event["rawPath"], "/a%20b");
        assert_eq!(event["rawQueryString"], "x=1&y=%2B&x=2");
        assert_eq!(event.get("body"), None);
    }

    #[test]
    fn structured_response_keeps_status_headers_and_cookies() {
        let payload = json!({"statusCode": 422, "headers": {"content-type": "text/plain"}, "cookies": ["a=1", "b=2"],
            "body": "aGk=", "isBase64Encoded": true});
        let answer = answer(&payload.to_string().into()).unwrap();
        assert_eq!(answer.status(), 422);
        assert_eq!(answer.headers()["content-type"], "text/plain");
        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn malformed_response_is_none() {
        for payload in [r#"{"statusCode": "x"}"#, r#"{"statusCode": 200, "body": {}}"#, "not json"] {
            assert!(answer(&Bytes::from(payload)).is_none(), "{payload}");
        }
        assert_eq!(answer(&Bytes::from(r#"{"ok": true}"#)).unwrap().status(), 200);
    }
}
