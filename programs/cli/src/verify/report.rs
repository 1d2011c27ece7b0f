//! What was found: a line on the terminal, a report to read, and the same as JSON without a name of the account.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::context::Context;

/// How what was seen compares with what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as the documents state.
    Ok,
    /// It differs, so the bridge may misbehave.
    Fail,
    /// It was asked, and nothing could be seen.
    Unknown,
    /// It was not asked.
    Skipped,
}

/// The answer to one question.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check that it belongs to.
    pub check: &'static str,
    /// The question.
    pub question: String,
    /// What the documents say.
    pub expected: String,
    /// What AWS said.
    pub seen: String,
    /// How they compare.
    pub verdict: Verdict,
    /// How sure that is.
    pub sure: String,
}

impl Finding {
    /// What was seen once, and whether it is what was expected.
    pub fn seen(question: &str, expected: &str, seen: impl Into<String>, as_expected: bool) -> Self {
        let verdict = if as_expected { Verdict::Ok } else { Verdict::Fail };
        Self::new(question, expected, seen, verdict, "seen once")
    }

    /// What could not be seen.
    pub fn unknown(question: &str, expected: &str, why: impl Into<String>) -> Self {
        Self::new(question, expected, why, Verdict::Unknown, "nothing was seen")
    }

    /// What was not asked.
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

    /// The same, surer or less sure.
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

/// The finding on one or two lines.
pub fn line(finding: &Finding) -> String {
    let Finding { check, question, expected, seen, verdict, sure } = finding;
    let expected = if *verdict == Verdict::Fail { format!("\n{:9}expected: {expected}", "") } else { String::new() };
    format!("{:<7}  {check}: {question}: {seen} ({sure}){expected}", word(*verdict))
}

/// How many there are of each.
pub fn summary(findings: &[Finding]) -> String {
    let all = [Verdict::Ok, Verdict::Fail, Verdict::Unknown, Verdict::Skipped];
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    all.map(|verdict| format!("{} {}", count(verdict), word(verdict))).join(", ")
}

/// The findings as JSON.
pub fn json(findings: &[Finding]) -> Value {
    json!(findings)
}

/// Writes `report.md` and `report.json` into a folder.
pub fn write(folder: &Path, probe: &Context<'_>, findings: &[Finding]) -> io::Result<()> {
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
        probe.name,
        env!("CARGO_PKG_VERSION"),
        probe.region,
        crate::output::iso(probe.began),
        summary(findings),
        rows.collect::<String>(),
    );
    fs::write(folder.join("report.md"), text)?;
    let redact = Redaction::of(probe);
    let events: Vec<_> = probe.seen_events().iter().map(|event| redact.event(event)).collect();
    let findings: Vec<_> = findings.iter().map(|finding| redact.value(&json!(finding))).collect();
    let report =
        json!({"version": env!("CARGO_PKG_VERSION"), "region": probe.region, "findings": findings, "events": events});
    fs::write(folder.join("report.json"), format!("{report:#}\n"))
}

/// The members of an event's detail that say how ECS behaves. No other is kept.
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

/// What replaces the account's names.
pub struct Redaction {
    names: Vec<(String, String)>,
}

impl Redaction {
    /// The names that a run knows.
    pub fn of(probe: &Context<'_>) -> Self {
        let mut names = probe.names();
        // The longer first: one may be a part of another.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.retain(|(name, _)| !name.is_empty());
        Self { names }
    }

    fn text(&self, text: &str) -> String {
        let named = self.names.iter().fold(text.to_owned(), |text, (name, other)| text.replace(name.as_str(), other));
        // Numbers of accounts, and ids of subnets, interfaces and security groups, whoever they are of.
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

    /// An event without what a report must not contain.
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
    fn a_redacted_event_has_no_name_of_the_account_and_no_command() {
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
