//! The results: lines on the terminal, report.md, and report.json, which contains no names of the account.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::context::Context;

/// The outcome of a comparison with the expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// AWS behaves as documented.
    Ok,
    /// AWS behaves differently, so the bridge may fail.
    Fail,
    /// The check ran, and observed nothing.
    Unknown,
    /// The check did not run.
    Skipped,
}

/// The result of one comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check that it belongs to.
    pub check: &'static str,
    /// The subject.
    pub question: String,
    /// The expectation.
    pub expected: String,
    /// The observation.
    pub seen: String,
    /// The outcome.
    pub verdict: Verdict,
    /// The evidence.
    pub sure: String,
}

impl Finding {
    /// Returns an observation, and the outcome of its comparison.
    pub fn seen(question: &str, expected: &str, seen: impl Into<String>, as_expected: bool) -> Self {
        let verdict = if as_expected { Verdict::Ok } else { Verdict::Fail };
        Self::new(question, expected, seen, verdict, "seen once")
    }

    /// Returns a result without an observation.
    pub fn unknown(question: &str, expected: &str, why: impl Into<String>) -> Self {
        Self::new(question, expected, why, Verdict::Unknown, "nothing was seen")
    }

    /// Returns the result of a check that did not run.
    pub fn skipped(question: &str, why: impl Into<String>) -> Self {
        Self::new(question, "", why, Verdict::Skipped, "not asked")
    }

    fn new(question: &str, expected: &str, seen: impl Into<String>, verdict: Verdict, sure: &str) -> Self {
        Self {
            check: "",
            question: question.to_owned(),
            expected: expected.to_owned(),
            seen: seen.into(),
            verdict,
            sure: sure.to_owned(),
        }
    }

    /// Replaces the evidence.
    pub fn sure(self, sure: impl Into<String>) -> Self {
        Self { sure: sure.into(), ..self }
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Fail => "FAIL",
        Verdict::Unknown => "unknown",
        Verdict::Skipped => "skipped",
    }
}

/// Returns the result on one or two lines.
pub fn line(finding: &Finding) -> String {
    let Finding { check, question, expected, seen, verdict, sure } = finding;
    let expected = if *verdict == Verdict::Fail { format!("\n{:9}expected: {expected}", "") } else { String::new() };
    format!("{:<7}  {check}: {question}: {seen} ({sure}){expected}", word(*verdict))
}

/// Returns the number of results by outcome.
pub fn summary(findings: &[Finding]) -> String {
    let all = [Verdict::Ok, Verdict::Fail, Verdict::Unknown, Verdict::Skipped];
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    all.map(|verdict| format!("{} {}", count(verdict), word(verdict))).join(", ")
}

/// Returns the results as JSON.
pub fn json(findings: &[Finding]) -> Value {
    json!(findings)
}

/// Writes `report.md` and `report.json` into a folder.
pub fn write(folder: &Path, context: &Context<'_>, findings: &[Finding]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let rows = findings.iter().map(|finding| {
        let Finding { check, question, expected, seen, verdict, sure } = finding;
        let cells = [check, question.as_str(), expected, seen, word(*verdict), sure].map(cell);
        format!("| {} |\n", cells.join(" | "))
    });
    let text = format!(
        "# What AWS does\n\nRun `{}` of ecs-bridge {} in {}, {}.\n\n{}\n\n| Check | Question | Expected | Seen | Verdict | Evidence |\n\
         |---|---|---|---|---|---|\n{}",
        context.name,
        env!("CARGO_PKG_VERSION"),
        context.region,
        crate::output::iso(context.began),
        summary(findings),
        rows.collect::<String>(),
    );
    fs::write(folder.join("report.md"), text)?;
    let redact = Redaction::of(context);
    let events: Vec<_> = context.seen_events().iter().map(|event| redact.event(event)).collect();
    let findings: Vec<_> = findings.iter().map(|finding| redact.value(&json!(finding))).collect();
    let report =
        json!({"version": env!("CARGO_PKG_VERSION"), "region": context.region, "findings": findings, "events": events});
    fs::write(folder.join("report.json"), format!("{report:#}\n"))
}

/// The members of the detail of an event that are kept, because they show the behavior of ECS.
const OF_DETAIL: [&str; 24] = [
    "clusterArn",
    "containers",
    "connectivity",
    "cpu",
    "createdAt",
    "desiredStatus",
    "executionStoppedAt",
    "lastStatus",
    "launchType",
    "memory",
    "platformVersion",
    "pullStartedAt",
    "pullStoppedAt",
    "startedAt",
    "startedBy",
    "stopCode",
    "stoppedAt",
    "stoppedReason",
    "stoppingAt",
    "taskArn",
    "updatedAt",
    "version",
    "capacityProviderName",
    "availabilityZone",
];
const OF_CONTAINER: [&str; 6] = ["containerArn", "exitCode", "lastStatus", "name", "reason", "taskArn"];

/// The replacements for the names of the account.
pub struct Redaction {
    names: Vec<(String, String)>,
}

impl Redaction {
    /// Creates the replacements for the names of a run.
    pub fn of(context: &Context<'_>) -> Self {
        let mut names = context.names();
        // Longer names come first, because one may be a part of another.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.retain(|(name, _)| !name.is_empty());
        Self { names }
    }

    fn text(&self, text: &str) -> String {
        let named = self.names.iter().fold(text.to_owned(), |text, (name, other)| text.replace(name.as_str(), other));
        // All account numbers, and all ids of subnets, interfaces and security groups.
        let words = named.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        words.map(redact_word).collect()
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => {
                Value::Object(members.iter().map(|(name, value)| (name.clone(), self.value(value))).collect())
            }
            other => other.clone(),
        }
    }

    /// Returns an event without commands and names of the account.
    pub fn event(&self, event: &Value) -> Value {
        let keep = |value: &Value, names: &[&str]| -> Map<String, Value> {
            let members = value.as_object().into_iter().flatten();
            members
                .filter(|(name, _)| names.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), self.value(value)))
                .collect()
        };
        let mut shown = keep(event, &["version", "detail-type", "source", "account", "time", "region", "resources"]);
        let detail = event.get("detail").cloned().unwrap_or_default();
        let mut kept = keep(&detail, &OF_DETAIL);
        let containers = detail.get("containers").and_then(Value::as_array).into_iter().flatten();
        kept.insert(
            "containers".into(),
            containers.map(|container| Value::Object(keep(container, &OF_CONTAINER))).collect(),
        );
        shown.insert("detail".into(), Value::Object(kept));
        Value::Object(shown)
    }
}

fn redact_word(word: &str) -> String {
    let bare = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let rest = word.get(bare.len()..).unwrap_or_default();
    if bare.len() == 12 && bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("123456789012{rest}");
    }
    for kind in ["subnet-", "eni-", "sg-", "vpc-"] {
        if bare.strip_prefix(kind).is_some_and(|id| id.len() >= 8) {
            return format!("{kind}0123456789abcdef0{rest}");
        }
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_event_contains_no_account_names_or_commands() {
        let redaction =
            Redaction { names: vec![("payroll".into(), "cluster".into()), ("t4sk1d".into(), "task-1".into())] };
        let event = json!({
            "account": "210987654321", "id": "x", "resources": ["arn:aws:ecs:us-east-1:210987654321:task/payroll/t4sk1d"],
            "detail": {
                "clusterArn": "arn:aws:ecs:us-east-1:210987654321:cluster/payroll", "group": "family:payroll",
                "stoppedReason": "no address in subnet-0aa11bb22cc33dd44.",
                "attachments": [{"details": [{"name": "privateIPv4Address", "value": "10.0.0.7"}]}],
                "overrides": {"containerOverrides": [{"command": ["secret"]}]},
                "containers": [{"name": "main", "exitCode": 7, "image": "private", "networkInterfaces": ["10.0.0.7"]}],
            },
        });
        let text = redaction.event(&event).to_string();
        for hidden in ["210987654321", "payroll", "t4sk1d", "0aa11bb22", "10.0.0.7", "secret", "private"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        for kept in ["\"exitCode\":7", "task/cluster/task-1", "123456789012", "no address in subnet-0123456789abcdef0."]
        {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }
}
