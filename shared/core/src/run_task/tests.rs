use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::shape::RUN_TASK;
use super::shape::join;
use super::shape::{
    Shape,
    Shape::{Flag, List, Number, Object, Text},
};
use crate::id::StartedBy;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn shape_of(model: &Value, shape: &Shape, path: &str) {
    match (model, shape) {
        (Value::Object(model), Object(members)) => {
            let mut ours: Vec<_> = members.iter().map(|(name, _)| (*name).to_owned()).collect();
            let mut theirs: Vec<_> = model.keys().cloned().collect();
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "{path}");
            members.iter().for_each(|(name, shape)| shape_of(&model[*name], shape, &join(path, name)));
        }
        (Value::Array(model), List(item)) => shape_of(&model[0], item, path),
        (Value::String(model), shape) => {
            let ours = match shape {
                Text => "text",
                Number => "number",
                Flag => "flag",
                List(_) | Object(_) => "nested",
            };
            assert_eq!(ours, model, "{path}");
        }
        _ => panic!("{path} is of another shape in botocore's model"),
    }
}

#[test]
fn the_shape_is_that_of_botocores_service_model() {
    let model = include_str!("../../../../tests/fixtures/run_task_shape.json");
    shape_of(&serde_json::from_str(model).unwrap(), &RUN_TASK, "");
}

#[test]
fn every_misspelt_or_mistyped_parameter_is_named() {
    let problems = check(&object(json!({
        "taskDefintion": "etl",
        "count": 2,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": "subnet-1"}},
        "overrides": {"containerOverrides": [{"cpu": "256"}]},
    })));
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "count",
            "networkConfiguration.awsvpcConfiguration.subnets",
            "overrides.containerOverrides.cpu",
            "overrides.containerOverrides",
            "taskDefintion"
        ]
    );
}

#[test]
fn objects_merge_lists_replace_and_containers_merge_by_name() {
    let mut base = object(json!({
        "tags": [{"key": "a", "value": "1"}],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-1"], "assignPublicIp": "DISABLED"}},
        "overrides": {"cpu": "256", "containerOverrides": [
            {"name": "log", "cpu": 1},
            {"name": "main", "memory": 512, "environment": [{"name": "A", "value": "1"}]}]},
    }));
    merge(
        &mut base,
        &object(json!({
            "tags": [{"key": "b", "value": "2"}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-2"]}},
            "overrides": {"containerOverrides": [
                {"name": "main", "environment": [{"name": "B", "value": "2"}]}, {"name": "new", "cpu": 2}]},
        })),
    );
    set_command(&mut base, "main", &["true".to_owned()]);
    assert_eq!(
        Value::Object(base),
        json!({
            "tags": [{"key": "b", "value": "2"}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s-2"], "assignPublicIp": "DISABLED"}},
            "overrides": {"cpu": "256", "containerOverrides": [
                {"name": "log", "cpu": 1},
                {"name": "main", "memory": 512, "environment": [{"name": "B", "value": "2"}], "command": ["true"]},
                {"name": "new", "cpu": 2}]},
        })
    );
}

#[test]
fn roles_cluster_and_task_definition_are_allowed_only_by_name() {
    let overrides = object(json!({
        "cluster": "other", "taskDefinition": "other", "platformVersion": "LATEST",
        "overrides": {"taskRoleArn": "arn", "cpu": "512", "containerOverrides": [{"name": "main", "cpu": 1}]},
    }));
    let refused = |allowed: &[&str]| {
        not_allowed(&overrides, &allowed.iter().map(ToString::to_string).collect::<Vec<_>>(), "main").join(" ")
    };
    assert_eq!(refused(&["*"]), "cluster overrides.taskRoleArn taskDefinition");
    assert_eq!(refused(&["*", "cluster", "taskDefinition", "overrides.taskRoleArn"]), "");
    assert_eq!(
        refused(&["overrides.cpu"]),
        "cluster overrides.containerOverrides.cpu overrides.taskRoleArn platformVersion taskDefinition"
    );
}

#[test]
fn an_empty_object_is_an_override_too() {
    assert_eq!(not_allowed(&object(json!({"networkConfiguration": {}})), &[], "main"), ["networkConfiguration"]);
    assert!(not_allowed(&Map::new(), &[], "main").is_empty());
}

fn refused(overrides: Value, allowed: &[&str]) -> String {
    let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
    not_allowed(&object(overrides), &allowed, "main").join(" ")
}

#[test]
fn entry_with_pattern_allows_only_matching_texts() {
    let allowed = ["taskDefinition=etl-*", "networkConfiguration.awsvpcConfiguration.subnets=subnet-0*"];
    for (overrides, expected) in [
        (json!({"taskDefinition": "etl-load:3"}), ""),
        (json!({"taskDefinition": "web"}), "taskDefinition"),
        (json!({"taskDefinition": 7}), "taskDefinition"),
        (json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-01", "subnet-02"]}}}), ""),
        (
            json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-01", "subnet-1"]}}}),
            "networkConfiguration.awsvpcConfiguration.subnets",
        ),
        (json!({"cluster": "etl-1"}), "cluster"),
    ] {
        assert_eq!(refused(overrides.clone(), &allowed), expected, "{overrides}");
    }
    assert!(is_allow_entry("taskDefinition=etl-*") && is_allow_entry("overrides.cpu=256"));
    for wrong in ["taskDefinitions=etl-*", "networkConfiguration=*", "enableExecuteCommand=true", "*=x"] {
        assert!(!is_allow_entry(wrong), "{wrong}");
    }
}

#[test]
fn another_container_is_allowed_only_by_its_name() {
    let sidecar = json!({"overrides": {"containerOverrides": [{"name": "log", "cpu": 1, "environment": []}]}});
    let all = "overrides.containerOverrides[*].cpu overrides.containerOverrides[*].environment \
               overrides.containerOverrides[*].name";
    for allowed in ["*", "overrides", "overrides.containerOverrides", "overrides.containerOverrides[other]"] {
        assert_eq!(refused(sidecar.clone(), &[allowed]), all, "{allowed}");
    }
    assert_eq!(refused(sidecar.clone(), &["overrides.containerOverrides[log]"]), "");
    let cpu = refused(sidecar, &["overrides.containerOverrides[log].cpu"]);
    assert_eq!(cpu, "overrides.containerOverrides[*].environment");
    assert!(
        is_allow_entry("overrides.containerOverrides[log].cpu")
            && !is_allow_entry("overrides.containerOverrides[log].cpus")
    );
    for odd in ["log].cpu[x", "*", "", "log]", "log].cpu"] {
        let odd = json!({"overrides": {"containerOverrides": [{"name": odd, "cpu": 1}]}});
        assert_ne!(refused(odd.clone(), &["overrides.containerOverrides[log]"]), "", "{odd}");
    }
    assert!(
        !is_allow_entry("overrides.containerOverrides[*].cpu") && !is_allow_entry("overrides.containerOverrides[log")
    );
}

#[test]
fn a_guarded_parameter_is_allowed_only_by_its_name_or_by_one_below_it() {
    let overrides = json!({
        "enableExecuteCommand": true,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"], "assignPublicIp": "ENABLED"}},
        "overrides": {"containerOverrides": [{"name": "main", "environmentFiles": [{"value": "s3", "type": "s3"}]}]},
    });
    let files = "overrides.containerOverrides.environmentFiles";
    let all = refused(overrides.clone(), &["*", "overrides.containerOverrides"]);
    assert!(all.contains("enableExecuteCommand") && all.contains("assignPublicIp") && all.contains(files), "{all}");
    let subnets = "networkConfiguration.awsvpcConfiguration.subnets";
    let rest = refused(overrides, &["enableExecuteCommand", files, subnets]);
    assert_eq!(rest, "networkConfiguration.awsvpcConfiguration.assignPublicIp");
}

#[test]
fn misplaced_parameter_error_names_its_place() {
    let problems = check(&object(json!({"containerOverrides": [], "subnets": ["secret"], "hunter2": 1})));
    let words: Vec<_> = problems.iter().map(Problem::unquoted).collect();
    assert!(
        words.contains(
            &"containerOverrides: is not a parameter here; RunTask has overrides.containerOverrides".to_owned()
        ),
        "{words:?}"
    );
    assert!(words.iter().any(|words| words.contains("networkConfiguration.awsvpcConfiguration.subnets")), "{words:?}");
    assert!(words.iter().all(|words| !words.contains("hunter2") && !words.contains("secret")), "{words:?}");
}

#[test]
fn a_frozen_request_comes_back_with_its_attempts_names() {
    let parameters = object(json!({"cluster": "nightly", "taskDefinition": "etl:7"}));
    let started_by = StartedBy::parse("prod/a/2").unwrap();
    let body: Value =
        serde_json::from_str(&FrozenRequest::freeze(&[parameters]).body(&started_by, 0).unwrap()).unwrap();
    let token = started_by.client_token(0);
    assert_eq!(
        body,
        json!({"startedBy": "prod/a/2", "clientToken": token, "cluster": "nightly", "taskDefinition": "etl:7"})
    );
}

#[test]
fn an_error_does_not_quote_command_or_environment() {
    let body = json!({"overrides": {"containerOverrides": [
        {"name": "main", "command": ["run", "--token=hunter2"], "environment": [{"name": "KEY", "value": "s3cr3t-value"}]}]}});
    assert_eq!(
        redact("cannot run --token=hunter2 with s3cr3t-value in main", &body.to_string()),
        "cannot run [redacted] with [redacted] in main"
    );
    assert_eq!(redact("as it is", "not json"), "as it is");
}

fn body(secrets: &[&str]) -> String {
    json!({"overrides": {"containerOverrides": [{"name": "main", "command": secrets}]}}).to_string()
}

#[test]
fn nested_secrets_are_redacted_in_any_order() {
    let command = ["/bin/sh", "-c", "/bin/sh /run.sh --password hunter2hunter2"];
    let message = "invalid: [/bin/sh, -c, /bin/sh /run.sh --password hunter2hunter2]";
    for order in [command, [command[2], command[1], command[0]]] {
        let redacted = redact(message, &body(&order));
        assert!(redacted.starts_with("invalid: [[redacted], -c, [redacted]"), "{redacted}");
        assert!(!redacted.contains("hunter"), "{redacted}");
    }
}

#[test]
fn a_secret_is_redacted_cut_wrapped_and_escaped() {
    let secret = "pass\"word\n=hunter2-hunter3";
    for message in [
        "cut: pass\"word\n=hunt...",
        "cut: ...ter2-hunter3 is too long",
        "wrapped: pass\"word =hunter2-\n   hunter3",
        r#"escaped: pass\"word\n=hunter2-hunter3"#,
        r#"twice: pass\\\"word\\n=hunter2-hunter3"#,
    ] {
        let redacted = redact(message, &body(&[secret]));
        assert!(
            redacted.contains("[redacted]") && !redacted.contains("word") && !redacted.contains("hunter"),
            "{redacted}"
        );
    }
}

#[test]
fn bytes_that_are_no_request_are_an_error() {
    assert!(FrozenRequest(b"not deflated".to_vec()).body(&StartedBy::parse("prod/a/1").unwrap(), 0).is_err());
}
