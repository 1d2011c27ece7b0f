//! `ecs-bridge profile import`: converts the configuration of Airflow's AwsEcsExecutor to a profile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::output;

const SECTION: &str = "aws_ecs_executor";
const VARIABLES: &str = "AIRFLOW__AWS_ECS_EXECUTOR__";
/// Options of the executor itself, which the bridge configures elsewhere or does not need.
const NOT_LAUNCHING: [&str; 4] = ["conn_id", "region_name", "check_health_on_startup", "max_run_task_attempts"];
/// Options that are RunTask's own parameters.
const PARAMETERS: [&str; 5] =
    ["capacity_provider_strategy", "cluster", "launch_type", "platform_version", "task_definition"];
/// Options of the network configuration, and the name of the container.
const PLACED: [&str; 4] = ["assign_public_ip", "container_name", "security_groups", "subnets"];
/// The RunTask parameters that the bridge sets itself, and refuses in a profile.
const OURS: [&str; 3] = ["count", "startedBy", "clientToken"];

/// Convert profiles
#[derive(Args)]
pub struct Profile {
    #[command(subcommand)]
    command: ProfileCommand,
}

#[derive(Subcommand)]
enum ProfileCommand {
    Import(Import),
}

/// Convert the configuration of AwsEcsExecutor to a profile
///
/// Reads the section [aws_ecs_executor] of airflow.cfg and the variables AIRFLOW__AWS_ECS_EXECUTOR__*, which take
/// precedence. Writes the profile to standard output, and notes on what to check to standard error.
#[derive(Args)]
struct Import {
    /// Configuration file of Airflow [default: $AIRFLOW_HOME/airflow.cfg or ~/airflow/airflow.cfg, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the profile
    #[arg(long, default_value = "default")]
    name: String,
}

/// Why the conversion failed.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read \"{}\"", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to import.
    #[error("cannot find a section [{SECTION}] or variables {VARIABLES}*: pass --config FILE")]
    Nothing,
    /// A required option is not set.
    #[error("the option {0} is not set: set it in [{SECTION}]")]
    Missing(&'static str),
    /// An option has an invalid value.
    #[error("the option {option} must be {expected}")]
    Malformed {
        /// Its name.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Two options exclude each other.
    #[error("capacity_provider_strategy and launch_type are mutually exclusive")]
    BothKinds,
}

impl Profile {
    pub fn run(self) -> Result<(), ImportError> {
        let ProfileCommand::Import(Import { config, name }) = self.command;
        let options = options(config)?;
        let (profile, notes) = convert(&options)?;
        output::say(format!("{:#}", json!({name: profile})));
        for note in notes {
            eprintln!("note: {note}");
        }
        Ok(())
    }
}

type Options = BTreeMap<String, String>;

fn options(config: Option<PathBuf>) -> Result<Options, ImportError> {
    let home = |name: &str, rest: &str| std::env::var_os(name).map(|home| PathBuf::from(home).join(rest));
    let usual = home("AIRFLOW_HOME", "airflow.cfg").or_else(|| home("HOME", "airflow/airflow.cfg"));
    let file = config.or_else(|| usual.filter(|path| path.is_file()));
    let mut options = match file {
        Some(path) => section(&std::fs::read_to_string(&path).map_err(|source| ImportError::File { path, source })?),
        None => Options::new(),
    };
    options.extend(
        std::env::vars().filter_map(|(name, value)| Some((name.strip_prefix(VARIABLES)?.to_ascii_lowercase(), value))),
    );
    // To Airflow an empty option is not set.
    options.retain(|_, value| !value.trim().is_empty());
    if options.is_empty() { Err(ImportError::Nothing) } else { Ok(options) }
}

/// The options of the section, parsed as Python's configparser does: continuation lines are indented, `%%` is a percent
/// sign.
fn section(text: &str) -> Options {
    let mut options = Options::new();
    let mut inside = false;
    let mut last: Option<String> = None;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let (true, true, Some(value)) =
            (inside, line.starts_with([' ', '\t']), last.as_ref().and_then(|name| options.get_mut(name)))
        {
            value.push('\n');
            value.push_str(bare);
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name == SECTION;
            last = None;
        } else if let (true, Some((name, value))) = (inside, bare.split_once(['=', ':'])) {
            let name = name.trim().to_ascii_lowercase();
            options.insert(name.clone(), value.trim().to_owned());
            last = Some(name);
        }
    }
    options.values_mut().for_each(|value| *value = value.replace("%%", "%"));
    options
}

/// The profile, and notes for its owner.
fn convert(options: &Options) -> Result<(Value, Vec<String>), ImportError> {
    let mut notes = Vec::new();
    let mut given: Map<String, Value> = Map::new();
    for name in PARAMETERS.into_iter().chain(PLACED) {
        if let Some(value) = options.get(name) {
            given.insert(name.to_owned(), value.clone().into());
        }
    }
    // The executor's defaults.
    given.entry("platform_version").or_insert_with(|| "LATEST".into());
    given.entry("assign_public_ip").or_insert_with(|| "False".into());
    if let Some(text) = options.get("run_task_kwargs") {
        let expected = "a JSON object";
        let malformed = ImportError::Malformed { option: "run_task_kwargs", expected };
        given.extend(serde_json::from_str::<Map<String, Value>>(text).map_err(|_| malformed)?);
    }
    if let Some(Value::String(text)) = given.get("capacity_provider_strategy") {
        given.insert("capacity_provider_strategy".into(), strategy(text)?);
    }

    // In camelCase an option has the name of the RunTask parameter.
    let mut run_task = camel_case(given);
    let ec2 = run_task.get("launchType").and_then(Value::as_str) == Some("EC2");
    match (run_task.contains_key("launchType"), run_task.contains_key("capacityProviderStrategy")) {
        (true, true) => return Err(ImportError::BothKinds),
        (false, false) => {
            run_task.insert("launchType".into(), "FARGATE".into());
            notes.push(
                "neither launch type nor capacity provider strategy is set: launchType is FARGATE, as AwsEcsExecutor sets it for \
                 a cluster without a default strategy; remove it if your cluster has one"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if ec2 {
        // AwsEcsExecutor drops it too: only Fargate has platform versions.
        run_task.remove("platformVersion");
    }
    for name in OURS {
        if run_task.remove(name).is_some() {
            notes.push(format!("{name} is omitted: the bridge sets it in every request"));
        }
    }
    if !run_task.contains_key("taskDefinition") {
        return Err(ImportError::Missing("task_definition"));
    }
    let container = run_task.remove("containerName").and_then(|name| name.as_str().map(str::to_owned));
    let container = container.ok_or(ImportError::Missing("container_name"))?;
    name_container(&mut run_task, &container)?;
    place_network(&mut run_task, ec2)?;

    let mut profile = json!({"container_name": container, "run_task": run_task});
    if let Some(attempts) = options.get("max_run_task_attempts") {
        let malformed = ImportError::Malformed { option: "max_run_task_attempts", expected: "a whole number above 0" };
        let attempts = attempts.trim().parse::<u32>().ok().filter(|attempts| *attempts > 0).ok_or(malformed)?;
        profile.as_object_mut().map(|profile| profile.insert("max_attempts".into(), attempts.into()));
        notes.push(
            "max_attempts counts only launches whose container never started; AwsEcsExecutor also repeats others"
                .to_owned(),
        );
    }
    let known =
        |name: &str| [&PARAMETERS[..], &PLACED, &NOT_LAUNCHING].concat().contains(&name) || name == "run_task_kwargs";
    for name in options.keys().filter(|name| !known(name)) {
        notes.push(format!("{name} is not an option of AwsEcsExecutor that can be imported"));
    }
    notes.push("no overrides are allowed: add what tasks set in executor_config to allow_overrides".to_owned());
    Ok((profile, notes))
}

/// JSON, or a Python literal, as in Airflow's own example.
fn strategy(text: &str) -> Result<Value, ImportError> {
    let expected = "a list of capacity providers";
    let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace('\'', "\"")));
    let malformed = ImportError::Malformed { option: "capacity_provider_strategy", expected };
    parsed.ok().filter(Value::is_array).ok_or(malformed)
}

/// Sets the container's name in the first of the container overrides, if any.
fn name_container(run_task: &mut Map<String, Value>, container: &str) -> Result<(), ImportError> {
    let Some(overrides) = run_task.get_mut("overrides") else { return Ok(()) };
    let malformed =
        ImportError::Malformed { option: "run_task_kwargs", expected: "an object whose overrides RunTask accepts" };
    let Some(containers) = overrides.get_mut("containerOverrides") else { return Ok(()) };
    let Some(first) = containers.as_array_mut().and_then(|containers| containers.first_mut()) else {
        return Err(malformed);
    };
    let first = first.as_object_mut().ok_or(malformed)?;
    first.insert("name".into(), container.into());
    // The command comes from the submission.
    first.remove("command");
    Ok(())
}

/// Moves subnets, security groups and the public address into the network configuration, which replaces that of
/// run_task_kwargs, as AwsEcsExecutor does.
fn place_network(run_task: &mut Map<String, Value>, ec2: bool) -> Result<(), ImportError> {
    let list = |value: Value| match value {
        Value::String(text) => text.split(',').map(|item| Value::from(item.trim())).collect(),
        other => other,
    };
    let subnets = run_task.remove("subnets").map(list);
    let groups = run_task.remove("securityGroups").map(list);
    let public = run_task.remove("assignPublicIp").and_then(|value| value.as_str().map(str::to_owned));
    if subnets.is_none() && groups.is_none() && public.as_deref() == Some("False") {
        return Ok(());
    }
    let subnets = subnets.ok_or(ImportError::Missing("subnets"))?;
    let mut network = json!({"subnets": subnets});
    let fields = network.as_object_mut().into_iter().next();
    if let Some(fields) = fields {
        if let Some(groups) = groups {
            fields.insert("securityGroups".into(), groups);
        }
        if !ec2 {
            let public = if public.as_deref() == Some("True") { "ENABLED" } else { "DISABLED" };
            fields.insert("assignPublicIp".into(), public.into());
        }
    }
    run_task.insert("networkConfiguration".into(), json!({"awsvpcConfiguration": network}));
    Ok(())
}

/// The object with its keys, also of nested objects, in camelCase. Those of tags are kept.
fn camel_case(object: Map<String, Value>) -> Map<String, Value> {
    let entries = object.into_iter().map(|(key, value)| match value {
        Value::Object(inner) if !key.eq_ignore_ascii_case("tags") => (camelize(&key), Value::Object(camel_case(inner))),
        other => (camelize(&key), other),
    });
    entries.collect()
}

fn camelize(key: &str) -> String {
    let mut words = key.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(config: &str) -> Result<Value, ImportError> {
        convert(&section(config)).map(|(profile, _)| profile)
    }

    #[test]
    fn a_section_becomes_a_profile() {
        let profile = import(
            "[core]\nexecutor = x\n[aws_ecs_executor]\n# a comment\nregion_name = eu-central-1\ncluster = jobs\n\
             container_name = airflow\ntask_definition = airflow:3\nsubnets = subnet-1,subnet-2\n\
             security_groups = sg-1\nassign_public_ip = True\nmax_run_task_attempts = 5\nlaunch_type = FARGATE\n\
             [webserver]\nsubnets = other\n",
        );
        let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1", "subnet-2"], "securityGroups": ["sg-1"],
            "assignPublicIp": "ENABLED"}});
        let run_task = json!({"cluster": "jobs", "taskDefinition": "airflow:3", "launchType": "FARGATE",
            "platformVersion": "LATEST", "networkConfiguration": network});
        let expected = json!({"container_name": "airflow", "max_attempts": 5, "run_task": run_task});
        assert_eq!(profile.unwrap(), expected);
    }

    #[test]
    fn run_task_kwargs_take_precedence_in_either_spelling() {
        let profile = import(
            "[aws_ecs_executor]\ncluster = jobs\ncontainer_name = main\ntask_definition = a\nsubnets = s\n\
             capacity_provider_strategy = [{'capacityProvider': 'FARGATE_SPOT', 'weight': 1}]\n\
             run_task_kwargs = {\"task_definition\": \"b\", \"tags\": [{\"key\": \"a_b\", \"value\": \"50%%\"}],\n\
             \x20 \"count\": 1, \"propagate_tags\": \"TASK_DEFINITION\",\n\
             \x20 \"overrides\": {\"container_overrides\": [{\"name\": \"x\", \"command\": [], \"environment\": []}]}}\n",
        );
        let profile = profile.unwrap();
        let run_task = &profile["run_task"];
        assert_eq!(run_task["taskDefinition"], "b");
        assert_eq!(run_task["tags"], json!([{"key": "a_b", "value": "50%"}]));
        assert_eq!(run_task["propagateTags"], "TASK_DEFINITION");
        assert_eq!(run_task["capacityProviderStrategy"], json!([{"capacityProvider": "FARGATE_SPOT", "weight": 1}]));
        assert_eq!(run_task["overrides"], json!({"containerOverrides": [{"name": "main", "environment": []}]}));
        assert_eq!((run_task.get("count"), run_task.get("launchType")), (None, None));
    }

    #[test]
    fn ec2_has_neither_platform_version_nor_public_address() {
        let profile =
            import("[aws_ecs_executor]\ncontainer_name = m\ntask_definition = a\nsubnets = s\nlaunch_type = EC2\n");
        let expected = json!({"taskDefinition": "a", "launchType": "EC2",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}});
        assert_eq!(profile.unwrap()["run_task"], expected);
    }

    #[test]
    fn a_configuration_that_airflow_refuses_is_refused() {
        let section = |more: &str| format!("[aws_ecs_executor]\ncontainer_name = m\ntask_definition = a\n{more}");
        assert!(matches!(import(&section("security_groups = sg")), Err(ImportError::Missing("subnets"))));
        let both = "subnets = s\nlaunch_type = EC2\ncapacity_provider_strategy = []";
        assert!(matches!(import(&section(both)), Err(ImportError::BothKinds)));
        assert!(matches!(import(&section("run_task_kwargs = [1]")), Err(ImportError::Malformed { .. })));
        assert!(matches!(import("[aws_ecs_executor]\ncluster = c"), Err(ImportError::Missing("task_definition"))));
    }
}
