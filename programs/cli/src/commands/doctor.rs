//! `ecs-bridge doctor`

use std::process::ExitCode;
use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_eventbridge::types::RuleState;
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_runtime_api::client::result::SdkError;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::account::{Account, Configuration, Function, error_text};
use crate::client::connection::Client;
use crate::client::error::ClientError;
use crate::client::find::BridgeOptions;
use crate::client::pools::Waiting;
use crate::error::CommandError;
use crate::output::{self, now};

/// The exit code if the bridge cannot be found.
const NOT_FOUND: u8 = 126;
/// The clock difference that fails the check. The limit of SigV4 is five minutes.
const SKEW: Duration = Duration::from_secs(60);

/// Check a deployment: URL, permissions, table, rule, dead-letter messages, clock, versions and profiles
#[derive(Args)]
#[command(after_help = "\
The command changes nothing. The verdict of each check is ok, FAIL with a remedy, or skipped with the reason. The exit code is \
0 if no check fails, 1 if a check fails, and 126 if the bridge cannot be found.")]
pub struct Doctor {
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Fail,
    Skipped,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

impl Finding {
    fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, detail: Some(detail.into()), remedy: None }
    }

    fn fail(check: impl Into<String>, detail: impl Into<String>, remedy: &'static str) -> Self {
        Self { check: check.into(), verdict: Verdict::Fail, detail: Some(detail.into()), remedy: Some(remedy) }
    }

    fn skipped(check: impl Into<String>, why: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Skipped, detail: Some(why.into()), remedy: None }
    }
}

const ALLOW_URL: &str = "allow this identity lambda:InvokeFunctionUrl and lambda:InvokeFunction on the submit function: attach the \
                         stack's ExecutorPolicy";
const ALLOW_TABLE: &str = "allow this identity dynamodb:DescribeTable, GetItem, BatchGetItem and Query on the table and its indexes: \
                           attach the operators' policy of infra/iam-policies.yaml";
const NOT_REACHED: &str =
    "this machine cannot reach the service: a private network needs a VPC endpoint for it (docs/private-network.md)";
const REDRIVE: &str = "find the cause in the log of the task-state function, fix it, and redrive the queue: see \"dead letters\" in \
                       docs/operating.md";

impl Doctor {
    pub fn run(self) -> ExitCode {
        self.examine().unwrap_or_else(|error| {
            output::report(&error);
            ExitCode::from(NOT_FOUND)
        })
    }

    fn examine(&self) -> Result<ExitCode, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let findings = runtime.block_on(async { Ok::<_, ClientError>(examine(&self.bridge.find().await?).await) })?;
        if self.json {
            output::say(json!(findings));
        } else {
            findings.iter().map(line).for_each(output::say);
        }
        Ok(ExitCode::from(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Fail))))
    }
}

fn line(finding: &Finding) -> String {
    let word = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skipped",
    };
    let detail = finding.detail.as_deref().unwrap_or_default();
    let remedy = finding.remedy.map(|remedy| format!("\n{:11}-> {remedy}", "")).unwrap_or_default();
    let word = format!("{word:<7}");
    let word = if output::has_colors() { output::paint(&word) } else { word };
    format!("{word}  {}: {detail}{remedy}", finding.check)
}

async fn examine(client: &Client) -> Vec<Finding> {
    let account = Account::of(client);
    let mut findings = vec![identity(&account).await];
    findings.extend(api(client).await);
    findings.extend(table(client).await);
    let configuration = account.configuration(Function::Submit).await;
    findings.extend(rule(&account).await);
    findings.extend(dead_letters(&account).await);
    findings.push(alarms(&account, client).await);
    findings.extend(pools(client).await);
    findings.extend(subnets(client, &account, configuration.as_ref()).await);
    findings
}

async fn identity(account: &Account) -> Finding {
    if !account.has("STS") {
        return Finding::skipped("identity", "a local stack accepts all identities");
    }
    match account.sts.get_caller_identity().send().await {
        Ok(answer) => Finding::ok("identity", answer.arn.unwrap_or_default()),
        Err(SdkError::DispatchFailure(failure)) if failure.is_io() || failure.is_timeout() => {
            Finding::skipped("identity", format!("STS cannot be reached: {NOT_REACHED}"))
        }
        Err(SdkError::TimeoutError(_)) => Finding::skipped("identity", format!("STS cannot be reached: {NOT_REACHED}")),
        Err(error) if is_of_an_endpoint(&error_text(&error)) => Finding::skipped("identity", error_text(&error)),
        Err(error) => Finding::fail("identity", error_text(&error), "log in: `aws sso login`, or check AWS_PROFILE"),
    }
}

/// Checks authentication, clock and version, and the checks of the API: table, cluster, profiles.
async fn api(client: &Client) -> Vec<Finding> {
    let before = now();
    let answer = match client.health().await {
        Ok(answer) => answer,
        Err(error) => {
            let (remedy, text) = (remedy_of(&error), output::with_causes(&error));
            return vec![Finding::fail("URL", text, remedy)];
        }
    };
    let mut findings = vec![Finding::ok("URL", format!("answers in {} ms", now() - before))];
    if let Some(date) = answer.date {
        let off = (before - date).unsigned_abs();
        findings.push(if u128::from(off) > SKEW.as_millis() {
            let remedy = "set the clock of this machine: AWS rejects signatures that are five minutes off";
            Finding::fail("clock", format!("differs from AWS by {} s", off / 1_000), remedy)
        } else {
            Finding::ok("clock", "agrees with AWS")
        });
    }
    let of = |name: &str| answer.body.get(name).and_then(Value::as_str).map(str::to_owned);
    let ours = env!("CARGO_PKG_VERSION");
    findings.push(match of("version") {
        Some(version) if version == ours => Finding::ok("versions", format!("functions and this program are {ours}")),
        version => Finding::fail(
            "versions",
            format!("the functions are {}, this program is {ours}", version.as_deref().unwrap_or("older")),
            "upgrade the older of the two: functions first",
        ),
    });
    for check in answer.body.get("checks").and_then(Value::as_array).into_iter().flatten() {
        let name = check.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let message = check.get("message").and_then(Value::as_str);
        findings.push(match message {
            None => Finding::ok(name, "as the functions see it"),
            Some(message) if name.starts_with("profile") => {
                Finding::fail(name, message, "correct the profile or its task definition, and deploy")
            }
            Some(message) => Finding::fail(name, message, "see \"Parameters\" in docs/deploying.md: names and roles"),
        });
    }
    findings
}

const fn remedy_of(error: &ClientError) -> &'static str {
    match error {
        ClientError::Rejected { status: 403, .. } => ALLOW_URL,
        ClientError::Rejected { status: 404, .. } => "check the URL: it is not that of a submit function",
        ClientError::Rejected { status: 429, .. } => {
            "the function is throttled: raise SubmitConcurrency or the account's quota"
        }
        ClientError::Rejected { .. } => "see the message in the log of the function",
        ClientError::Credentials(_) => "log in: `aws sso login`, or check AWS_PROFILE",
        ClientError::Unreachable { .. } | ClientError::TimedOut(_) => {
            "check the URL and the internet access of this machine: function URLs have no VPC endpoint"
        }
        _ => "pass --stack NAME, and the Region of the stack",
    }
}

async fn table(client: &Client) -> Vec<Finding> {
    if !client.has_table() {
        return vec![Finding::skipped("table", "cannot find its name: pass --stack or --table")];
    }
    let shown = client.table_indexes().await.map(|indexes| {
        let missing: Vec<_> = ["due", "feed", "pool"].into_iter().filter(|name| !indexes.contains(*name)).collect();
        if missing.is_empty() {
            Finding::ok("table", "active, with its indexes due, feed and pool")
        } else {
            let text = format!("has no active index {}", missing.join(", "));
            Finding::fail("table", text, "deploy the stack again; the creation of an index takes minutes")
        }
    });
    let read = client.ended_since(now(), 1).await;
    let read = read.map(|_| Finding::ok("feed", "this identity may read it"));
    let failed = |what: &str, error: &ClientError| {
        let text = output::with_causes(error);
        match error {
            // The bridge does not call DescribeTable, so the endpoint of a private network need not allow it.
            _ if is_of_an_endpoint(&text) => Finding::skipped(what, text),
            ClientError::Table { source, .. } => match source.code() {
                Some("ResourceNotFoundException") => Finding::fail(what, text, "check --table, and the Region"),
                Some(_) => Finding::fail(what, text, ALLOW_TABLE),
                None => Finding::fail(what, text, NOT_REACHED),
            },
            _ => Finding::fail(what, text, remedy_of(error)),
        }
    };
    vec![
        shown.unwrap_or_else(|error| failed("table", &error)),
        read.unwrap_or_else(|error| match error {
            ClientError::Missing { .. } => Finding::skipped("feed", error.to_string()),
            error => failed("feed", &error),
        }),
    ]
}

/// Returns `true` if the policy of a VPC endpoint denied a call. No policy of this identity can allow it.
fn is_of_an_endpoint(text: &str) -> bool {
    text.contains("VPC endpoint policy")
}

/// Checks the rule that sends events to task-state. It is found by its target.
async fn rule(account: &Account) -> Vec<Finding> {
    if !account.has("EVENTBRIDGE") {
        return vec![Finding::skipped("rule", "a local stack has none")];
    }
    let arn = match account.configuration(Function::TaskState).await {
        Ok(configuration) => configuration.arn,
        Err(error) => return vec![Finding::skipped("rule", error)],
    };
    let remedy = "deploy the stack again: without the rule, only reconcile records outcomes, minutes late";
    let answer = account.events.list_rule_names_by_target().target_arn(&arn).send().await;
    let names = match answer {
        Ok(answer) => answer.rule_names.unwrap_or_default(),
        Err(error) => return vec![Finding::skipped("rule", error_text(&error))],
    };
    let Some(name) = names.first() else {
        return vec![Finding::fail("rule", "no rule has the task-state function as its target", remedy)];
    };
    let rule = account.events.describe_rule().name(name).send().await;
    let mut findings = vec![match rule {
        Ok(rule) if rule.state == Some(RuleState::Enabled) => Finding::ok("rule", format!("{name} is enabled")),
        Ok(_) => {
            Finding::fail("rule", format!("{name} is disabled"), "enable it: `aws events enable-rule --name RULE`")
        }
        Err(error) => Finding::skipped("rule", error_text(&error)),
    }];
    findings.push(match account.events.list_targets_by_rule().rule(name).send().await {
        Ok(answer) => {
            let target = answer.targets().iter().find(|target| target.arn() == arn);
            let queue = target.and_then(|target| target.dead_letter_config()?.arn());
            match queue {
                Some(_) => Finding::ok("target", "events that are not delivered go to a queue"),
                None => {
                    Finding::fail("target", "has no dead-letter queue: events that are not delivered are lost", remedy)
                }
            }
        }
        Err(error) => Finding::skipped("target", error_text(&error)),
    });
    findings
}

async fn dead_letters(account: &Account) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, output, is_harmless) in [
        ("dead-letter messages of events", "EventDeadLettersUrl", false),
        // Dropped runs: a later run has done their work, so their number alone indicates no problem.
        ("dead-letter messages of reconcile", "ReconcileDeadLettersUrl", true),
    ] {
        let Some(url) = account.outputs.get(output) else {
            findings.push(Finding::skipped(what, "cannot find the queue: pass --stack"));
            continue;
        };
        let wanted = QueueAttributeName::ApproximateNumberOfMessages;
        let answer = account.sqs.get_queue_attributes().queue_url(url).attribute_names(wanted.clone()).send().await;
        findings.push(match answer {
            Ok(answer) => {
                let count = answer.attributes.and_then(|mut all| all.remove(&wanted)).unwrap_or_default();
                if count == "0" {
                    Finding::ok(what, "none")
                } else if is_harmless {
                    Finding::ok(what, format!("{count} dropped runs, kept for diagnosis; a later run did their work"))
                } else {
                    Finding::fail(what, format!("{count} messages"), REDRIVE)
                }
            }
            Err(error) => Finding::skipped(what, error_text(&error)),
        });
    }
    findings
}

async fn alarms(account: &Account, client: &Client) -> Finding {
    if !account.has("CLOUDWATCH") {
        return Finding::skipped("alarms", "a local stack has none");
    }
    let deployment = match client.deployment() {
        Ok(deployment) => deployment,
        Err(error) => return Finding::skipped("alarms", error.to_string()),
    };
    match account.alarms(deployment).await {
        Ok(alarms) => {
            let ringing = alarms.iter().filter(|alarm| alarm.state_value() == Some(&StateValue::Alarm));
            let ringing: Vec<_> = ringing.filter_map(|alarm| alarm.alarm_name()).collect();
            if !ringing.is_empty() {
                let remedy = "see \"alarms\" in docs/operating.md for the cause and the fix of each alarm";
                return Finding::fail("alarms", ringing.join(", "), remedy);
            }
            if alarms.is_empty() {
                return Finding::fail("alarms", "the deployment has none", "deploy the stack again");
            }
            Finding::ok("alarms", format!("none of {} is in the state ALARM", alarms.len()))
        }
        Err(error) => Finding::skipped("alarms", error),
    }
}

/// Checks the pools for stuck submissions.
async fn pools(client: &Client) -> Vec<Finding> {
    let read = async {
        let mut findings = Vec::new();
        for profile in client.pools().await? {
            let what = format!("pool of {profile}");
            let row = client.pool(&profile).await?;
            let stuck = row.stuck();
            for (key, reason) in &stuck {
                let Waiting { count, oldest_at } = Waiting::read(client, key).await?;
                let age = oldest_at
                    .map_or_else(String::new, |at| format!(", the oldest for {}", output::duration(now() - at)));
                let text = format!("{count} submissions are stuck{age}: {reason}");
                findings.push(Finding::fail(what.clone(), text, "see \"pools-stuck\" in docs/operating.md"));
            }
            if stuck.is_empty() {
                findings.push(Finding::ok(what, if row.is_paused() { "paused" } else { "no submission is stuck" }));
            }
        }
        Ok::<_, ClientError>(findings)
    };
    read.await.unwrap_or_else(|error| vec![Finding::skipped("pools", output::with_causes(&error))])
}

/// Checks the subnets of the profiles in EC2.
async fn subnets(client: &Client, account: &Account, configuration: Result<&Configuration, &String>) -> Vec<Finding> {
    let profiles = match configuration.map(Configuration::profiles) {
        Ok(Some(profiles)) => profiles,
        Ok(None) => return vec![Finding::skipped("subnets", "the profiles are in a layer")],
        Err(error) => return vec![Finding::skipped("subnets", error)],
    };
    if !account.has("EC2") {
        return vec![Finding::skipped("subnets", "a local stack has none")];
    }
    let mut findings = Vec::new();
    for (name, profile) in profiles {
        let at = "/run_task/networkConfiguration/awsvpcConfiguration/subnets";
        let ids = profile.pointer(at).and_then(Value::as_array).into_iter().flatten();
        let ids: Vec<_> = ids.filter_map(Value::as_str).collect();
        if ids.is_empty() {
            continue;
        }
        let what = format!("subnets of {name}");
        findings.push(match client.describe_subnets(&ids).await {
            Ok(None) => Finding::ok(what, ids.join(", ")),
            Ok(Some(refusal)) if refusal.contains("NotFound") => {
                Finding::fail(what, refusal, "correct them in the profile: they must be in this account and Region")
            }
            Ok(Some(refusal)) => Finding::skipped(what, refusal),
            Err(error) => Finding::skipped(what, output::with_causes(&error)),
        });
    }
    findings
}
