//! `ecs-bridge verify-aws`: verifies the assumptions of the documentation on AWS.
//!
//! The names of all created resources begin with [`PREFIX`]. A run removes them at its end, also after an interruption, and
//! `--clean` removes those of a run that was killed. Task definitions are only deregistered: ECS keeps them as INACTIVE.

mod context;
mod events;
mod functions;
mod launches;
mod lifecycle;
mod report;
mod url;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::account::Account;
use crate::client::error::ClientError;
use crate::client::find::BridgeOptions;
use crate::output;
use context::Context;
use report::{Finding, Verdict};

/// The prefix of the names of all created resources.
const PREFIX: &str = "ecs-bridge-verify-";
/// The exit code if the deployment cannot be verified.
const NOT_VERIFIED: u8 = 126;
/// The exit code after an interruption.
const INTERRUPTED: u8 = 130;

/// Verify on AWS what the bridge assumes; takes about 15 minutes, up to 8 small tasks and less than one dollar
#[derive(Args)]
#[command(after_help = "\
The verdict of each check is ok, FAIL with the expectation, unknown or skipped. --plan shows the checks and the permissions \
that they need. The exit code is 0 if no check fails, 1 if a check fails, 126 if the deployment cannot be verified, and 130 \
after an interruption. The command removes the resources that it creates. ECS keeps one revision of the task definition \
ecs-bridge-verify-cannot-pull as INACTIVE. The records of the submissions stay in the table until they expire.")]
pub struct VerifyAws {
    /// Show the checks and the permissions that they need, and exit
    #[arg(long)]
    plan: bool,
    /// Remove the resources of a run that was killed, and exit
    #[arg(long, conflicts_with = "plan")]
    clean: bool,
    /// The profile to launch with; its image must have `sh` [default: default, otherwise the first profile without a pool]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Run only this check; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = known)]
    only: Vec<String>,
    /// Skip this check; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = known, conflicts_with = "only")]
    skip: Vec<String>,
    /// Folder for report.md and report.json; report.json contains no names of the account
    #[arg(long, value_name = "DIR", default_value = "verify-aws")]
    report: PathBuf,
    /// Divide what is waited for at most by this; for a local stack with --time-scale
    #[arg(long, value_name = "X", default_value_t = 1.0, hide = true)]
    time_scale: f64,
    /// Also write the findings as a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bridge: BridgeOptions,
}

/// A check.
struct Check {
    name: &'static str,
    does: &'static str,
    needs: &'static [&'static str],
}

const CHECKS: [Check; 18] = [
    Check {
        name: "url",
        does: "calls the function URL signed, unsigned, and signed with a wrong secret",
        needs: &["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"],
    },
    Check { name: "direct-invocation", does: "invokes submit without its URL", needs: &["lambda:InvokeFunction"] },
    Check {
        name: "unknown-task-definition",
        does: "calls RunTask with a task definition that does not exist",
        needs: &["ecs:RunTask"],
    },
    Check {
        name: "wrong-subnet",
        does: "calls RunTask with a subnet that does not exist",
        needs: &["ecs:RunTask", "iam:PassRole"],
    },
    Check {
        name: "too-much-memory",
        does: "calls RunTask with more memory than Fargate has",
        needs: &["ecs:RunTask", "iam:PassRole"],
    },
    Check {
        name: "token",
        does: "starts a task of `true`, and calls RunTask with its client token again: unchanged, with other parameters, and after its end",
        needs: &["ecs:RunTask", "ecs:DescribeTasks", "ecs:StopTask", "iam:PassRole"],
    },
    Check { name: "exit-codes", does: "submits three commands that end with 0, 7 and 137", needs: &[] },
    Check {
        name: "events",
        does: "compares the events of those tasks with the exits of their containers, by a temporary queue and rule",
        needs: &[
            "dynamodb:BatchGetItem",
            "ecs:DescribeClusters",
            "sqs:CreateQueue",
            "sqs:SetQueueAttributes",
            "sqs:GetQueueAttributes",
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:DeleteQueue",
            "sqs:ListQueues",
            "events:PutRule",
            "events:PutTargets",
            "events:RemoveTargets",
            "events:DeleteRule",
            "events:ListRules",
        ],
    },
    Check { name: "stop", does: "submits `sleep 600`, and stops it once it runs", needs: &[] },
    Check {
        name: "after-the-end",
        does: "lists and describes one of those tasks",
        needs: &["ecs:ListTasks", "ecs:DescribeTasks"],
    },
    Check {
        name: "cannot-pull",
        does: "registers a task definition whose image does not exist, runs it, and deregisters it",
        needs: &[
            "ecs:DescribeTaskDefinition",
            "ecs:RegisterTaskDefinition",
            "ecs:DeregisterTaskDefinition",
            "ecs:ListTaskDefinitions",
            "ecs:RunTask",
            "iam:PassRole",
        ],
    },
    Check {
        name: "session-name",
        does: "submits a command to a pool, whose runner is known by the session of its role",
        needs: &[],
    },
    Check {
        name: "dead-letters",
        does: "invokes task-state with an event that it cannot handle, waits for its dead letter and deletes it; the alarms access-denied, orphan-tasks, task-state-errors and dead-letters may go off",
        needs: &["lambda:InvokeFunction", "sqs:ReceiveMessage", "sqs:DeleteMessage"],
    },
    Check {
        name: "schedule",
        does: "counts the runs of reconcile in the last minutes",
        needs: &["cloudwatch:GetMetricStatistics"],
    },
    Check {
        name: "alarm-metrics",
        does: "looks for the metrics of every alarm",
        needs: &["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"],
    },
    Check { name: "durations", does: "reads how long the functions took", needs: &["cloudwatch:GetMetricStatistics"] },
    Check {
        name: "cold-start",
        does: "reads the reports of the functions' starts from their logs",
        needs: &["logs:FilterLogEvents"],
    },
    Check { name: "cost", does: "computes what the run cost", needs: &[] },
];

/// The permissions that every run needs.
const ALWAYS: [&str; 3] =
    ["cloudformation:DescribeStacks", "lambda:GetFunctionConfiguration", "ecs:DescribeTaskDefinition"];

fn known(name: &str) -> Result<String, String> {
    if CHECKS.iter().any(|check| check.name == name) {
        return Ok(name.to_owned());
    }
    Err(format!("must be one of {}", CHECKS.iter().map(|check| check.name).collect::<Vec<_>>().join(", ")))
}

impl VerifyAws {
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let code = match runtime {
            Ok(runtime) => runtime.block_on(self.verify()).unwrap_or_else(|error| {
                eprintln!("ecs-bridge: {error}");
                NOT_VERIFIED
            }),
            Err(error) => {
                output::report(&error);
                NOT_VERIFIED
            }
        };
        ExitCode::from(code)
    }

    fn checks(&self) -> impl Iterator<Item = &'static Check> {
        CHECKS.iter().filter(|check| {
            let named = |names: &[String]| names.iter().any(|name| name == check.name);
            if self.only.is_empty() { !named(&self.skip) } else { named(&self.only) }
        })
    }

    async fn verify(&self) -> Result<u8, String> {
        if self.plan {
            self.print_plan();
            return Ok(0);
        }
        let text = |error: ClientError| output::with_causes(&error);
        let bridge = self.bridge.find().await.map_err(text)?;
        let account = Account::of(&bridge);
        let mut context = Context::new(&bridge, &account, self.profile.as_deref(), self.time_scale).await?;
        if self.clean {
            let removed = context.clean(PREFIX).await?;
            output::say(if removed.is_empty() { "no resources are left".to_owned() } else { removed.join("\n") });
            return Ok(0);
        }
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt()).map_err(|error| error.to_string())?,
            signal(SignalKind::terminate()).map_err(|error| error.to_string())?,
        );
        let mut findings = Vec::new();
        let was_interrupted = tokio::select! {
            () = self.run_checks(&mut context, &mut findings) => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        let left = context.clean(&context.name.clone()).await;
        if was_interrupted {
            left?;
            eprintln!(
                "ecs-bridge: interrupted; the created resources are removed, and task definitions are deregistered"
            );
            return Ok(INTERRUPTED);
        }
        report::write(&self.report, &context, &findings)
            .map_err(|error| format!("{}: {error}", self.report.display()))?;
        if self.json {
            output::say(report::json(&findings));
        } else {
            output::say(format!("\n{}\nreport: {}", report::summary(&findings), self.report.display()));
        }
        left?;
        Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Fail)))
    }

    /// Runs the checks in sequence, and prints each result at once.
    async fn run_checks(&self, context: &mut Context<'_>, findings: &mut Vec<Finding>) {
        for check in self.checks() {
            let found = match check.name {
                "url" => url::url(context).await,
                "direct-invocation" => url::direct_invocation(context).await,
                "unknown-task-definition" => launches::unknown_task_definition(context).await,
                "wrong-subnet" => launches::wrong_subnet(context).await,
                "too-much-memory" => launches::too_much_memory(context).await,
                "token" => launches::token(context).await,
                "exit-codes" => lifecycle::exit_codes(context).await,
                "events" => lifecycle::events(context).await,
                "stop" => lifecycle::stop(context).await,
                "after-the-end" => lifecycle::after_the_end(context).await,
                "cannot-pull" => lifecycle::cannot_pull(context).await,
                "session-name" => lifecycle::session_name(context).await,
                "dead-letters" => functions::dead_letters(context).await,
                "schedule" => functions::schedule(context).await,
                "alarm-metrics" => functions::alarm_metrics(context).await,
                "durations" => functions::durations(context).await,
                "cold-start" => functions::cold_start(context).await,
                _ => functions::cost(context),
            };
            for mut finding in found {
                finding.check = check.name;
                if !self.json {
                    output::say(report::line(&finding));
                }
                findings.push(finding);
            }
        }
    }

    fn print_plan(&self) {
        output::say("verify-aws runs these checks in sequence:\n");
        let rows: Vec<_> = self.checks().map(|check| [check.name.to_owned(), check.does.to_owned()]).collect();
        output::say(output::table(["CHECK", "ACTION"], &rows));
        let mut needs: Vec<_> =
            ALWAYS.into_iter().chain(self.checks().flat_map(|check| check.needs.iter().copied())).collect();
        needs.sort_unstable();
        needs.dedup();
        output::say(format!(
            "In addition to the ExecutorPolicy of the stack, this identity needs:\n  {}\n",
            needs.join("\n  ")
        ));
        output::say(format!(
            "The run takes about 15 minutes and starts up to 8 tasks of the size of the profile, for less than one dollar. The names \
             of all created resources begin with {PREFIX}, and the run removes them. It deregisters one revision of the task \
             definition {PREFIX}cannot-pull, which ECS keeps as INACTIVE. The ids of its submissions begin with verify-. The run \
             changes no other task, queue or rule."
        ));
    }
}
