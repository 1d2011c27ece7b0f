use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Map;
use serde_json::Value;

use crate::id::ProfileName;
use crate::run_task::OVERRIDES_CHARACTERS;

use super::*;
use serde_json::json;

fn parse(profiles: Value) -> Result<Profiles, Vec<String>> {
    Profiles::parse(&profiles.to_string(), &Clusters::new("nightly", "big, arn:aws:ecs:eu-west-1:1:cluster/gpu,"))
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = parse(json!({
        "a b": {"run_task": {"taskDefinition": "x"}, "container_name": "main"},
        "etl": {"run_task": {"taskDefinition": "x", "count": 3, "clientToken": "t", "subnets": [], "cluster": "x"},
                "container_name": "", "max_attempts": 0, "relaunch_on": ["EssentialContainerExited"],
                "complete_on": "exit", "run_timeout": -1, "allow_overrides": ["overrides.cpus"], "retries": 1},
        "empty": 7,
    }))
    .unwrap_err();
    for expected in [
        "\"a b\": the profile's name must be",
        "etl.run_task: count: is set by the bridge",
        "etl.run_task: clientToken: is set by the bridge",
        "etl.run_task: subnets: is not a parameter here; RunTask has networkConfiguration",
        "etl.run_task.cluster: is not a cluster of the deployment; known: nightly, big, arn:aws",
        "etl.container_name: is required",
        "etl.max_attempts: must be a whole number from 1 to 99",
        "etl.relaunch_on: \"EssentialContainerExited\" is not a stop code to relaunch on",
        "etl.complete_on: must be",
        "etl.run_timeout: must be a whole number of seconds",
        "etl.allow_overrides: \"overrides.cpus\" is not a parameter of RunTask",
        "etl.retries: is not a field of a profile",
        "empty: must be an object",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} is not in {problems:#?}");
    }
}

fn profile(allow: &[&str]) -> Profile {
    let profiles = parse(json!({"default": {
        "run_task": {"taskDefinition": "etl", "launchType": "FARGATE"}, "container_name": "main", "allow_overrides": allow}}));
    profiles.unwrap().get(&ProfileName::default_profile()).unwrap().clone()
}

fn request(allow: &[&str], overrides: Value) -> Result<Request, RequestError> {
    profile(allow).request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new())
}

#[test]
fn the_cluster_of_the_deployment_is_the_default() {
    assert_eq!(request(&[], json!({})).unwrap().cluster, "nightly");
}

#[test]
fn cluster_of_another_region_is_refused() {
    let arn = |region: &str| format!("arn:aws-cn:ecs:{region}:1:cluster/nightly");
    let clusters = |others: &str| Clusters::new("nightly", others).in_region(Some("eu-west-1".to_owned()));
    let parsed = |cluster: &str| {
        let profile = json!({"run_task": {"taskDefinition": "x", "cluster": cluster}, "container_name": "main"});
        Profiles::parse(&json!({"etl": profile}).to_string(), &clusters(&arn("us-east-1")))
    };
    let problems = parsed(&arn("us-east-1")).unwrap_err();
    let expected = "etl.run_task.cluster: \"arn:aws-cn:ecs:us-east-1:1:cluster/nightly\" is in the Region \"us-east-1\", and \
                    the functions run in \"eu-west-1\": ";
    assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
    assert!(parsed(&arn("eu-west-1")).is_ok() && parsed("nightly").is_ok());

    assert_eq!(clusters(&arn("us-east-1")).in_other_regions().count(), 1);
    assert_eq!(clusters(&arn("eu-west-1")).in_other_regions().count(), 0);
    assert_eq!(Clusters::new(&arn("us-east-1"), "").in_other_regions().count(), 0, "the Region is not set");
    assert!(!clusters("").contains(&arn("us-east-1")) && clusters("").contains(&arn("eu-west-1")));
}

#[test]
fn a_submission_may_name_only_a_cluster_of_the_deployment() {
    let arn = |name: &str| format!("arn:aws:ecs:eu-west-1:1:cluster/{name}");
    let on = |cluster: &str| request(&["cluster"], json!({"cluster": cluster})).map(|request| request.cluster);
    for known in ["nightly", "big", "gpu", &arn("gpu"), &arn("big")] {
        assert_eq!(on(known).unwrap(), known);
    }
    for unknown in ["", "other", "nightl", "cluster/big", &arn("other"), "arn:aws:ecs:us-east-1:1:cluster/gpu"] {
        let error = on(unknown).unwrap_err();
        assert!(matches!(error, RequestError::UnknownCluster(_)), "{unknown}: {error}");
        assert!(error.to_string().ends_with("known: nightly, big, arn:aws:ecs:eu-west-1:1:cluster/gpu"), "{error}");
    }
}

#[test]
fn an_override_that_the_profile_does_not_allow_is_refused_by_name() {
    let error = request(&["overrides.cpu"], json!({"overrides": {"cpu": "512", "memory": "1024"}})).unwrap_err();
    assert_eq!(error.to_string(), "the profile does not allow overrides of overrides.memory");
}

#[test]
fn the_profiles_own_container_may_be_named_in_brackets() {
    let overrides = json!({"overrides": {"containerOverrides": [{"name": "main", "cpu": 1}]}});
    assert!(request(&["overrides.containerOverrides[main].cpu"], overrides.clone()).is_ok());
    assert!(request(&["overrides.containerOverrides[log].cpu"], overrides).is_err());
}

/// A profile on Spot with these fallbacks and further fields.
fn falling_back(fallbacks: Value, more: Value) -> Result<Profile, Vec<String>> {
    let spot = json!([{"capacityProvider": "FARGATE_SPOT"}]);
    let mut profile = json!({
        "run_task": {"taskDefinition": "etl", "capacityProviderStrategy": spot}, "container_name": "main",
        "fallbacks": fallbacks, "allow_overrides": ["*"]
    });
    profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse(json!({"default": profile})).map(|all| all.get(&ProfileName::default_profile()).unwrap().clone())
}

fn body(request: &Request, choice: u8) -> Value {
    let started_by = crate::StartedBy::parse("prod/a/1").unwrap();
    serde_json::from_str(&request.frozen.body(&started_by, choice).unwrap()).unwrap()
}

#[test]
fn each_choice_is_a_request_of_its_own_with_the_same_command_and_overrides() {
    let fallbacks = json!([
        {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
        {"capacityProviderStrategy": null, "launchType": "EC2", "taskDefinition": "etl-ec2"},
    ]);
    let profile = falling_back(fallbacks, json!({})).unwrap();
    let overrides = json!({"overrides": {"cpu": "512"}});
    let request = profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap();
    assert_eq!(request.policy.fallbacks, 2);
    let bodies: Vec<_> = (0..=2).map(|choice| body(&request, choice)).collect();
    let tokens: BTreeSet<_> = bodies.iter().map(|body| body["clientToken"].as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 3);
    for body in &bodies {
        assert_eq!((&body["startedBy"], &body["overrides"]["cpu"]), (&"prod/a/1".into(), &"512".into()));
        assert_eq!(body["overrides"]["containerOverrides"], json!([{"name": "main", "command": ["true"]}]));
    }
    assert_eq!(bodies[1]["capacityProviderStrategy"][0]["capacityProvider"], "FARGATE");
    assert_eq!((&bodies[2]["launchType"], &bodies[2]["taskDefinition"]), (&"EC2".into(), &"etl-ec2".into()));
    assert!(bodies[2].get("capacityProviderStrategy").is_none());
    assert!(request.frozen.body(&crate::StartedBy::parse("prod/a/1").unwrap(), 3).is_err());
    assert_eq!(profile.task_definitions().into_iter().collect::<Vec<_>>(), ["etl", "etl-ec2"]);
}

#[test]
fn capacity_override_disables_fallbacks() {
    let profile = falling_back(json!([{"capacityProviderStrategy": null, "launchType": "EC2"}]), json!({})).unwrap();
    let overrides = json!({"capacityProviderStrategy": [{"capacityProvider": "big"}]});
    let request = profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap();
    assert_eq!(request.policy.fallbacks, 0);
    assert_eq!(body(&request, 0)["capacityProviderStrategy"][0]["capacityProvider"], "big");
}

#[test]
fn fallbacks_that_cannot_be_are_refused_with_the_reason() {
    for (fallbacks, more, expected) in [
        (json!([]), json!({}), "default.fallbacks: must be a list of 1 to 8 objects"),
        (
            json!([{"launchType": "EC2"}]),
            json!({}),
            "default.fallbacks[0]: has launchType and capacityProviderStrategy",
        ),
        (json!([{"cluster": "big"}]), json!({}), "default.fallbacks[0]: cluster: is that of run_task"),
        (json!([{"cpu": "1"}]), json!({}), "default.fallbacks[0]: cpu: is not a parameter here; RunTask has overrides"),
        (json!([{"taskDefinition": null}]), json!({}), "default.fallbacks[0]: taskDefinition: must not be removed"),
        (
            json!([{"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}]),
            json!({}),
            "default.fallbacks[0]: asks for the same as run_task or an earlier fallback",
        ),
        (
            json!([{"platformVersion": "LATEST"}]),
            json!({"relaunch_on": [{"stop_code": "SpotInterruption", "fallback": 2}]}),
            "default.relaunch_on: fallback 2 is none of the 1 fallbacks",
        ),
        (
            json!([{"platformVersion": "LATEST"}]),
            json!({"relaunch_on": ["SpotInterruption", {"stop_code": "SpotInterruption"}]}),
            "default.relaunch_on: names a stop code twice",
        ),
        (
            json!([{"platformVersion": "LATEST"}]),
            json!({"relaunch_on": [{"stop_code": "SpotInterruption", "counts": 1}]}),
            "default.relaunch_on: must be a list of stop codes, or of objects",
        ),
    ] {
        let problems = falling_back(fallbacks, more).unwrap_err();
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:?}");
    }
}

#[test]
fn a_relaunch_is_as_short_in_a_row_as_in_a_profile() {
    let full = json!({"stop_code": "SpotInterruption", "fallback": 1, "counts_as_attempt": false});
    for text in [json!("SpotInterruption"), full] {
        let relaunch: Relaunch = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(relaunch).unwrap(), text);
    }
}

#[test]
fn labels_become_tags_that_ecs_takes() {
    let tags = json!([{"key": "team", "value": "data"}, {"key": "dag_id", "value": "the profile's own"}]);
    let run_task = json!({"taskDefinition": "etl", "tags": tags});
    let profile = json!({"run_task": run_task, "container_name": "main",
                         "tags_from_labels": ["dag_id", "task_id", "run_id"]});
    let all = parse(json!({"default": profile})).unwrap();
    let labels = BTreeMap::from([
        ("dag_id".to_owned(), "etl".to_owned()),
        ("task_id".to_owned(), format!("load[{}]", "ä".repeat(300))),
        ("other".to_owned(), "x".to_owned()),
    ]);
    let profile = all.get(&ProfileName::default_profile()).unwrap();
    let request = profile.request(&["true".to_owned()], &Map::new(), &labels).unwrap();
    let cut = format!("load_{}", "ä".repeat(251));
    assert_eq!(
        body(&request, 0)["tags"],
        json!([{"key": "team", "value": "data"}, {"key": "dag_id", "value": "the profile's own"}, {"key": "task_id", "value": cut}])
    );
}

#[test]
fn tags_that_ecs_would_refuse_are_refused_at_start() {
    for (names, expected) in [
        (json!(["aws:dag"]), "is no key of a tag"),
        (json!(["da[g]"]), "is no key of a tag"),
        (json!([""]), "is no key of a tag"),
        (json!((0..51).map(|n| format!("l{n}")).collect::<Vec<_>>()), "a task has at most 50 tags"),
    ] {
        let profile = json!({"run_task": {"taskDefinition": "x"}, "container_name": "main", "tags_from_labels": names});
        let problems = parse(json!({"default": profile})).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    }
}

fn pooled(pool: Value, more: Value) -> Result<Profile, Vec<String>> {
    let mut profile = json!({"run_task": {"taskDefinition": "etl"}, "container_name": "main", "pool": pool,
                             "allow_overrides": ["overrides.cpu", "overrides.containerOverrides"]});
    profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse(json!({"default": profile})).map(|all| all.get(&ProfileName::default_profile()).unwrap().clone())
}

#[test]
fn runner_claims_only_environment_overrides() {
    let profile = pooled(json!({"max": 10}), json!({})).unwrap();
    let pool = |overrides: Value| {
        profile.request(&["true".to_owned()], overrides.as_object().unwrap(), &BTreeMap::new()).unwrap().pool
    };
    let environment = json!([{"name": "A", "value": "1"}]);
    let container = |entry: Value| json!({"overrides": {"containerOverrides": [entry]}});
    assert!(pool(json!({})).is_some());
    assert!(pool(container(json!({"name": "main", "environment": environment}))).is_some());
    assert!(pool(container(json!({"name": "main", "cpu": 256, "environment": environment}))).is_none());
    assert!(pool(json!({"overrides": {"cpu": "256"}})).is_none());
}

#[test]
fn a_pool_accepts_longer_commands_than_ecs() {
    let profile = pooled(json!({"max": 10}), json!({})).unwrap();
    let request = |n: usize| profile.request(&["x".repeat(n)], &Map::new(), &BTreeMap::new());
    assert!(request(60_000).unwrap().pool.is_some());
    let error = request(70_000).unwrap_err();
    assert!(error.to_string().contains("a pool accepts at most 65536"), "{error}");
}

#[test]
fn a_pool_that_cannot_work_is_refused_with_the_reason() {
    for (pool, more, expected) in [
        (json!({"max": 1, "min_idle": 2}), json!({}), "default.pool: min_idle must not exceed max"),
        (json!({"max": 0}), json!({}), "default.pool: max must be from 1 to 10000"),
        (json!({"max": 1, "size": 2}), json!({}), "default.pool: unknown field `size`"),
        (json!({}), json!({}), "default.pool: missing field `max`"),
        (json!({"max": 1}), json!({"complete_on": "task_stopped"}), "default.pool: the container of a pool must not"),
    ] {
        let problems = pooled(pool, more).unwrap_err();
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn the_request_of_a_runner_is_the_profiles_with_the_runner_program() {
    let profile = pooled(json!({"max": 1, "commands_per_container": 3}), json!({})).unwrap();
    let (key, spec) = profile.spec().unwrap();
    let id: crate::SubmissionId = "runner-1".parse().unwrap();
    let (now, rules) = (crate::decide::tests::now(), crate::decide::tests::rules());
    let work = crate::pool::RunnerApiAddress::Url("https://work".into());
    let record = spec.runner((id, key, ProfileName::default_profile()), "secret", &work, now, &rules).unwrap();
    let body = record.request.as_ref().unwrap().body(&record.started_by(&rules), 0).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let container = &body["overrides"]["containerOverrides"][0];
    assert_eq!(container["command"], json!(["ecs-bridge-runner"]));
    for variable in [
        json!({"name": "ECS_BRIDGE_RUNNER_API_URL", "value": "https://work"}),
        json!({"name": "ECS_BRIDGE_RUNNER_ID", "value": "runner-1"}),
        json!({"name": "ECS_BRIDGE_RUNNER_TOKEN", "value": "secret"}),
        json!({"name": "ECS_BRIDGE_POLL_INTERVAL_MS", "value": "1000"}),
    ] {
        assert!(container["environment"].as_array().unwrap().contains(&variable), "{container}");
    }
    let runner = record.runner().unwrap();
    assert_eq!((runner.commands, runner.token.clone()), (3, crate::pool::TokenHash::of("secret")));
}

#[test]
fn one_character_more_than_ecs_accepts_is_refused_with_the_numbers() {
    let length = |n: usize| profile(&[]).request(&["x".repeat(n)], &Map::new(), &BTreeMap::new());
    let frame = r#"{"containerOverrides":[{"command":[""],"name":"main"}]}"#.len();
    assert!(length(OVERRIDES_CHARACTERS - frame).is_ok());
    let error = length(OVERRIDES_CHARACTERS - frame + 1).unwrap_err();
    assert_eq!(error, RequestError::TooLong(8193));
    assert!(error.to_string().contains("8193") && error.to_string().contains("8192"), "{error}");
}
