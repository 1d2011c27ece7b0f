//! Checks of the responses of RunTask.

use serde_json::json;

use super::context::{A_TASK, Context};
use super::report::Finding;

type Answer = Result<aws_sdk_ecs::types::Task, (String, String)>;

/// Compares an error with the expected code and text, by which the bridge decides whether to retry.
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

/// Checks the permanent failure of an unknown task definition.
pub async fn unknown_task_definition(context: &mut Context<'_>) -> Vec<Finding> {
    let request = context.request("unknown", &["true"], &json!({"taskDefinition": "ecs-bridge-verify-does-not-exist"}));
    let answer = context.run_task(&request).await;
    refusal(
        "RunTask of an unknown task definition",
        &["InvalidParameterException", "ClientException"],
        "taskdefinition",
        answer,
    )
}

/// Checks the permanent failure of an unknown subnet.
pub async fn wrong_subnet(context: &mut Context<'_>) -> Vec<Finding> {
    let question = "RunTask with an unknown subnet";
    if !context.has_network() {
        // ECS then rejects any network configuration.
        return vec![Finding::skipped(question, "the profile has no networkConfiguration: its tasks take no subnet")];
    }
    let network = json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-00000000000000000"]}}});
    let request = context.request("subnet", &["true"], &network);
    let answer = context.run_task(&request).await;
    refusal(question, &["InvalidParameterException"], "subnet", answer)
}

/// Checks the permanent failure of a size that Fargate does not have.
pub async fn too_much_memory(context: &mut Context<'_>) -> Vec<Finding> {
    let question = "RunTask with too much memory";
    if !context.is_on_fargate() {
        // On instances, a task that is too large fails with a capacity error, which is retryable.
        return vec![Finding::skipped(question, "the profile does not run on Fargate, whose refusal this is")];
    }
    let request = context.request("memory", &["true"], &json!({"overrides": {"cpu": "256", "memory": "999999"}}));
    let answer = context.run_task(&request).await;
    refusal(question, &["InvalidParameterException", "ClientException"], "fargate configuration", answer)
}

/// Checks that repeated client tokens start no second task.
pub async fn token(context: &mut Context<'_>) -> Vec<Finding> {
    let (again, other, late) = (
        "RunTask again with its client token",
        "the same token with other parameters",
        "the same token after the task's end",
    );
    let request = context.request("token", &["true"], &json!({}));
    let arn = match context.run_task(&request).await {
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
    compare(again, context.run_task(&request).await);
    let changed = context.request("token", &["true", "again"], &json!({}));
    let refused = refusal(other, &["ConflictException"], "", context.run_task(&changed).await);
    let ended = context
        .until(A_TASK, async || {
            let answer =
                context.account.ecs.describe_tasks().cluster(&context.cluster).tasks(&arn).send().await.ok()?;
            answer.tasks().iter().any(|task| task.last_status() == Some("STOPPED")).then_some(())
        })
        .await;
    if ended.is_some() {
        compare(late, context.run_task(&request).await);
    } else {
        findings.push(Finding::unknown(late, "the same task", "the task has not ended"));
    }
    findings.splice(1..1, refused);
    findings
}
