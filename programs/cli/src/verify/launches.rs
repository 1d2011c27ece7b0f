//! What RunTask answers.

use serde_json::json;

use super::context::{A_TASK, Context};
use super::report::Finding;

type Answer = Result<aws_sdk_ecs::types::Task, (String, String)>;

/// A refusal, as code and text. By both the bridge decides whether to retry.
fn refusal(question: &str, codes: &[&str], says: &str, answer: Answer) -> Vec<Finding> {
    let mut expected = codes.join(" or ");
    if !says.is_empty() {
        expected.push_str(&format!(", with \"{says}\" in its text"));
    }
    vec![match answer {
        Ok(task) => {
            Finding::seen(question, &expected, format!("a task: {}", task.task_arn().unwrap_or_default()), false)
        }
        Err((code, text)) => {
            let fits = codes.contains(&code.as_str()) && text.to_ascii_lowercase().contains(says);
            Finding::seen(question, &expected, format!("{code}: {text}"), fits)
        }
    }]
}

/// For good.
pub async fn unknown_task_definition(probe: &mut Context<'_>) -> Vec<Finding> {
    let request = probe.request("unknown", &["true"], &json!({"taskDefinition": "ecs-bridge-verify-does-not-exist"}));
    let answer = probe.run_task(&request).await;
    refusal(
        "RunTask of an unknown task definition",
        &["InvalidParameterException", "ClientException"],
        "taskdefinition",
        answer,
    )
}

/// For good.
pub async fn wrong_subnet(probe: &mut Context<'_>) -> Vec<Finding> {
    let question = "RunTask with an unknown subnet";
    if !probe.has_network() {
        // ECS then refuses the network configuration itself, whatever is in it.
        return vec![Finding::skipped(question, "the profile has no networkConfiguration: its tasks take no subnet")];
    }
    let network = json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-00000000000000000"]}}});
    let request = probe.request("subnet", &["true"], &network);
    let answer = probe.run_task(&request).await;
    refusal(question, &["InvalidParameterException"], "subnet", answer)
}

/// For good.
pub async fn too_much_memory(probe: &mut Context<'_>) -> Vec<Finding> {
    let question = "RunTask with too much memory";
    if !probe.is_on_fargate() {
        // On instances, too much memory is want of capacity: a refusal for now.
        return vec![Finding::skipped(question, "the profile does not run on Fargate, whose refusal this is")];
    }
    let request = probe.request("memory", &["true"], &json!({"overrides": {"cpu": "256", "memory": "999999"}}));
    let answer = probe.run_task(&request).await;
    refusal(question, &["InvalidParameterException", "ClientException"], "fargate configuration", answer)
}

/// What keeps a launch from happening twice.
pub async fn token(probe: &mut Context<'_>) -> Vec<Finding> {
    let (again, other, late) = (
        "RunTask again with its client token",
        "the same token with other parameters",
        "the same token after the task's end",
    );
    let request = probe.request("token", &["true"], &json!({}));
    let arn = match probe.run_task(&request).await {
        Ok(task) => task.task_arn.unwrap_or_default(),
        Err((code, text)) => return vec![Finding::unknown(again, "the same task", format!("{code}: {text}"))],
    };
    let mut findings = Vec::new();
    let mut compare = |question: &str, answer: Answer| match answer {
        Ok(task) => {
            let is_same = task.task_arn() == Some(&arn);
            let seen = if is_same { "the same task" } else { "another task was started" };
            findings.push(Finding::seen(question, "the same task", seen, is_same));
        }
        Err((code, text)) => findings.push(Finding::seen(question, "the same task", format!("{code}: {text}"), false)),
    };
    compare(again, probe.run_task(&request).await);
    let changed = probe.request("token", &["true", "again"], &json!({}));
    let refused = refusal(other, &["ConflictException"], "", probe.run_task(&changed).await);
    let ended = probe
        .until(A_TASK, async || {
            let answer = probe.account.ecs.describe_tasks().cluster(&probe.cluster).tasks(&arn).send().await.ok()?;
            answer.tasks().iter().any(|task| task.last_status() == Some("STOPPED")).then_some(())
        })
        .await;
    if ended.is_some() {
        compare(late, probe.run_task(&request).await);
    } else {
        findings.push(Finding::unknown(late, "the same task", "the task has not ended"));
    }
    findings.splice(1..1, refused);
    findings
}
