//! What the local stack takes from the deployment's own template.yaml, so that the two cannot differ: the table, the
//! event pattern, and each function's time limit and address.

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::pattern::{Pattern, PatternError};

/// The template as it was when this program was built.
pub const BUILT_IN: &str = include_str!("../../template.yaml");

/// The parts of the template that a local stack needs, all references resolved.
#[derive(Clone, Debug)]
pub struct Template {
    /// Which events reach task-state.
    pub pattern: Pattern,
    /// The members that DynamoDB's CreateTable takes, without the name.
    pub table: Map<String, Value>,
    /// The attribute by which DynamoDB drops old items.
    pub time_to_live: Value,
    /// The functions by the names of their binaries.
    pub functions: BTreeMap<String, FunctionTemplate>,
}

/// What the template says of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTemplate {
    /// After this time an invocation is ended.
    pub timeout: Duration,
    /// Whether it can be called at a URL of its own.
    pub has_url: bool,
}

/// Why a template cannot be used.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// It is not YAML.
    #[error("the template is not YAML")]
    Yaml(#[source] saphyr::ScanError),
    /// It says something in a way that is not understood here.
    #[error("the template cannot be used at {at}: {problem}")]
    Unusable {
        /// The path to it.
        at: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Its event pattern is not one.
    #[error("the template's event pattern is refused")]
    Pattern(#[source] PatternError),
}

impl Template {
    /// Reads a template, its parameters set to these values.
    ///
    /// # Errors
    /// Where it is not YAML, or one of the parts is missing or not understood.
    pub fn parse(text: &str, parameters: &BTreeMap<&str, &str>) -> Result<Self, TemplateError> {
        let documents = Yaml::load_from_str(text).map_err(TemplateError::Yaml)?;
        let root = documents.first().ok_or_else(|| unusable("the top", "it is empty"))?;
        let resources = at(root, "Resources")?;

        let properties = at(at(resources, "Table")?, "Properties")?;
        let mut table = Map::new();
        for member in CREATE_TABLE {
            if let Some(value) = properties.as_mapping_get(member) {
                table.insert(member.to_owned(), resolve(value, parameters, member)?);
            }
        }
        let time_to_live = resolve(at(properties, TIME_TO_LIVE)?, parameters, TIME_TO_LIVE)?;

        let mut pattern = resources;
        for key in PATTERN {
            pattern = at(pattern, key)?;
        }
        let pattern = resolve(pattern, parameters, "the event pattern")?;
        let pattern = Pattern::parse(&pattern).map_err(TemplateError::Pattern)?;

        let mut functions = BTreeMap::new();
        for resource in resources.as_mapping().into_iter().flat_map(|resources| resources.values()) {
            let Some(binary) =
                path(resource, &["Metadata", "BuildProperties", "Binary"]).and_then(|name| name.as_str())
            else {
                continue;
            };
            let timeout = path(resource, &["Properties", "Timeout"]).and_then(|seconds| seconds.as_integer());
            let timeout = timeout.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(LAMBDA_TIMEOUT);
            let has_url = path(resource, &["Properties", "FunctionUrlConfig"]).is_some();
            let function = FunctionTemplate { timeout: Duration::from_secs(timeout), has_url };
            functions.insert(binary.to_owned(), function);
        }
        Ok(Self { pattern, table, time_to_live, functions })
    }
}

/// The time limit of a function that sets none, in seconds.
const LAMBDA_TIMEOUT: u64 = 3;
const PATTERN: [&str; 6] = ["TaskStateFunction", "Properties", "Events", "TaskStateChange", "Properties", "Pattern"];
const TIME_TO_LIVE: &str = "TimeToLiveSpecification";
/// The members of a table's properties that CreateTable has too, and that matter on one machine.
const CREATE_TABLE: [&str; 5] =
    ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "LocalSecondaryIndexes", "BillingMode"];

fn unusable(at: &str, problem: &'static str) -> TemplateError {
    TemplateError::Unusable { at: at.to_owned(), problem }
}

fn at<'y, 'input>(node: &'y Yaml<'input>, key: &str) -> Result<&'y Yaml<'input>, TemplateError> {
    node.as_mapping_get(key).ok_or_else(|| unusable(key, "it is missing"))
}

fn path<'y, 'input>(node: &'y Yaml<'input>, keys: &[&str]) -> Option<&'y Yaml<'input>> {
    keys.iter().try_fold(node, |node, key| node.as_mapping_get(key))
}

/// YAML as JSON, with `Ref` and `Fn::Sub` of parameters replaced, in their long and their short form, and `Fn::If` in its
/// long one.
fn resolve(node: &Yaml, parameters: &BTreeMap<&str, &str>, place: &str) -> Result<Value, TemplateError> {
    let parameter = |name: &str| {
        let value =
            parameters.get(name).ok_or_else(|| unusable(place, "only the template's parameters can be referred to"));
        value.map(|value| (*value).to_owned())
    };
    let substitute = |text: &str| {
        let mut rest = text;
        let mut whole = String::new();
        while let Some((before, reference)) = rest.split_once("${") {
            let (name, after) = reference.split_once('}').ok_or_else(|| unusable(place, "a ${ has no end"))?;
            whole.push_str(before);
            whole.push_str(&parameter(name)?);
            rest = after;
        }
        whole.push_str(rest);
        Ok(Value::String(whole))
    };
    match node {
        Yaml::Tagged(tag, inner) => match (tag.suffix.as_str(), inner.as_str()) {
            ("Ref", Some(name)) => parameter(name).map(Value::String),
            ("Sub", Some(text)) => substitute(text),
            _ => Err(unusable(place, "only !Ref and !Sub are understood")),
        },
        Yaml::Mapping(mapping) => {
            if let (1, Some((key, value))) = (mapping.len(), mapping.iter().next()) {
                match (key.as_str(), value.as_str()) {
                    (Some("Ref"), Some(name)) => return parameter(name).map(Value::String),
                    (Some("Fn::Sub"), Some(text)) => return substitute(text),
                    _ => {}
                }
                // Every condition is that an optional parameter is given, and none is here.
                if let (Some("Fn::If"), Yaml::Sequence(items)) = (key.as_str(), value)
                    && let [_, _, otherwise] = items.as_slice()
                {
                    return resolve(otherwise, parameters, place);
                }
            }
            let entries = mapping.iter().map(|(key, value)| {
                let key = key.as_str().ok_or_else(|| unusable(place, "a key is no text"))?;
                Ok((key.to_owned(), resolve(value, parameters, place)?))
            });
            Ok(Value::Object(entries.collect::<Result<_, TemplateError>>()?))
        }
        Yaml::Sequence(items) => {
            let items = items.iter().map(|item| resolve(item, parameters, place));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        Yaml::Value(Scalar::Null) => Ok(Value::Null),
        Yaml::Value(Scalar::Boolean(value)) => Ok(Value::Bool(*value)),
        Yaml::Value(Scalar::Integer(value)) => Ok(Value::from(*value)),
        Yaml::Value(Scalar::FloatingPoint(value)) => Ok(Value::from(value.into_inner())),
        Yaml::Value(Scalar::String(value)) => Ok(Value::String(value.to_string())),
        Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => Err(unusable(place, "a value is not understood")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameters() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([("Deployment", "dev"), ("ClusterArn", "arn:aws:ecs:us-east-1:123456789012:cluster/local")])
    }

    #[test]
    fn the_projects_own_template_is_understood() {
        let template = Template::parse(BUILT_IN, &parameters()).unwrap();
        assert!(template.table.contains_key("KeySchema"));
        assert!(template.functions["submit"].has_url);
        assert!(!template.functions["task-state"].has_url);
        assert!(template.functions.contains_key("reconcile"));
    }

    #[test]
    fn its_pattern_passes_events_of_the_own_deployment_and_cluster_only() {
        let template = Template::parse(BUILT_IN, &parameters()).unwrap();
        let event = |cluster: &str, started_by: &str, detail_type: &str| {
            json!({"source": "aws.ecs", "detail-type": detail_type, "detail": {
                "clusterArn": format!("arn:aws:ecs:us-east-1:123456789012:cluster/{cluster}"),
                "startedBy": started_by, "lastStatus": "STOPPED"}})
        };
        let task = "ECS Task State Change";
        assert!(template.pattern.matches(&event("local", "dev/a/1", task)));
        assert!(!template.pattern.matches(&event("local", "development/a/1", task)));
        assert!(!template.pattern.matches(&event("other", "dev/a/1", task)));
        assert!(!template.pattern.matches(&event("local", "dev/a/1", "ECS Service Action")));
    }

    #[test]
    fn short_and_long_references_are_resolved_alike() {
        let text =
            "a: !Sub '${Deployment}/'\nb: {'Fn::Sub': '${Deployment}/'}\nc: !Ref ClusterArn\nd: {Ref: ClusterArn}";
        let documents = Yaml::load_from_str(text).unwrap();
        let resolved = resolve(&documents[0], &parameters(), "test").unwrap();
        assert_eq!(resolved["a"], "dev/");
        assert_eq!(resolved["a"], resolved["b"]);
        assert_eq!(resolved["c"], resolved["d"]);
    }

    #[test]
    fn of_an_if_the_branch_without_the_option_is_taken() {
        let documents = Yaml::load_from_str("a: {'Fn::If': [HasMore, {Ref: More}, [{Ref: ClusterArn}]]}").unwrap();
        let resolved = resolve(&documents[0], &parameters(), "test").unwrap();
        assert_eq!(resolved["a"], json!([parameters()["ClusterArn"]]));
    }

    #[test]
    fn a_reference_to_a_resource_is_refused() {
        let documents = Yaml::load_from_str("a: !GetAtt Table.Arn").unwrap();
        assert!(resolve(&documents[0], &parameters(), "test").is_err());
    }
}
