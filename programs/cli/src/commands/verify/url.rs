//! Checks of the ways to call submit.

use serde_json::json;

use super::context::Context;
use super::report::Finding;
use crate::account::{Function, error_text};
use crate::output::with_causes;

const HEALTH: &str = "/v1/health";

/// Checks that the function URL with `AWS_IAM` accepts only signed calls.
pub async fn url(context: &mut Context<'_>) -> Vec<Finding> {
    let (signed, unsigned, guessed) = ("a signed call", "an unsigned call", "a call signed with a wrong secret");
    let mut findings = vec![match context.bridge.health().await {
        Ok(health) => {
            let status = health.body.get("status").and_then(serde_json::Value::as_str).unwrap_or("unhealthy");
            Finding::seen(signed, "200, status ok", format!("answered, status {status}"), status == "ok")
        }
        Err(error) => Finding::seen(signed, "200, status ok", with_causes(&error), false),
    }];
    for (question, wrong_secret) in [(unsigned, false), (guessed, true)] {
        findings.push(match context.bridge.call_unauthorized(HEALTH, wrong_secret).await {
            Ok((status, body)) => {
                let body: String = body.chars().take(200).collect();
                Finding::seen(
                    question,
                    "403 by Lambda, before the function runs",
                    format!("{status} {body}"),
                    status == 403,
                )
            }
            Err(error) => Finding::unknown(question, "403", with_causes(&error)),
        });
    }
    findings
}

/// Checks the direct invocation.
pub async fn direct_invocation(context: &mut Context<'_>) -> Vec<Finding> {
    let (question, expected) = ("submit, invoked directly", "the same answer as by its URL");
    let Some(name) = context.account.function(Function::Submit) else {
        return vec![Finding::skipped(question, "the function's name is not known")];
    };
    let payload = aws_sdk_lambda::primitives::Blob::new(json!({"health": true}).to_string());
    let answer = context.account.lambda.invoke().function_name(name).payload(payload).send().await;
    vec![match answer {
        Ok(answer) => {
            let body =
                answer.payload().map(|body| String::from_utf8_lossy(body.as_ref()).into_owned()).unwrap_or_default();
            let answered: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let is_ok =
                answer.function_error().is_none() && answered.get("status").is_some_and(|status| status == "ok");
            let seen = if is_ok { "status ok".to_owned() } else { body.chars().take(300).collect() };
            Finding::seen(question, expected, seen, is_ok)
        }
        Err(error) => Finding::unknown(question, expected, error_text(&error)),
    }]
}
