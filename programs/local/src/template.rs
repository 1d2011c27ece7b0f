//! The parts of template.yaml that the local stack uses: the table, the event pattern, and the timeout of each function.
//! The local stack reads them from the template, so that both deployments are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::pattern::{Pattern, PatternError};

/// The template with which this program was built.
pub const BUILT_IN: &str = include_str!("../../../template.yaml");

/// The parts of the template that a local stack needs, with references resolved.
#[derive(Clone, Debug)]
pub struct Template {
    /// The pattern of the events for task-state.
    pub pattern: Pattern,
    /// The parameters of CreateTable, without the name.
    pub table: Map<String, Value>,
    /// The attribute of the time to live.
    pub time_to_live: Value,
    /// The functions, by the names of their binaries.
    pub functions: BTreeMap<String, FunctionTemplate>,
}

/// The template's settings of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTemplate {
    /// The timeout of an invocation.
    pub timeout: Duration,
}

/// The cause of an unusable template.
#[derive(Debug, Error)]
pub enum TemplateError {
    /// It is not YAML.
    #[error("invalid template: not YAML")]
    Yaml(#[source] saphyr::ScanError),
    /// A part is missing, or uses a feature that is not supported here.
    #[error("invalid template at \"{at}\": {problem}")]
    Unusable {
        /// The key in question.
        at: String,
        /// The problem.
        problem: &'static str,
    },
    /// Its event pattern is not valid.
    #[error("invalid event pattern in the template")]
    Pattern(#[source] PatternError),
}

impl Template {
    /// Parses a template with these values of its parameters.
    ///
    /// # Errors
    /// If it is not YAML, or one of the parts is missing or not supported.
    pub fn parse(text: &str, parameters: &BTreeMap<&str, &str>) -> Result<Self, TemplateError> {
        let documents = Yaml::load_from_str(text).map_err(TemplateError::Yaml)?;
        let root = documents.first().ok_or_else(|| unusable("Resources", "the template is empty"))?;
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
            functions.insert(binary.to_owned(), FunctionTemplate { timeout: Duration::from_secs(timeout) });
        }
        Ok(Self { pattern, table, time_to_live, functions })
    }
}

/// The default timeout of a function, in seconds.
const LAMBDA_TIMEOUT: u64 = 3;
const PATTERN: [&str; 6] = ["TaskStateFunction", "Properties", "Events", "TaskStateChange", "Properties", "Pattern"];
const TIME_TO_LIVE: &str = "TimeToLiveSpecification";
/// The properties of a table that are also parameters of CreateTable, and that matter on one machine.
const CREATE_TABLE: [&str; 5] =
    ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "LocalSecondaryIndexes", "BillingMode"];

fn unusable(at: &str, problem: &'static str) -> TemplateError {
    TemplateError::Unusable { at: at.to_owned(), problem }
}

fn at<'y, 'input>(node: &'y Yaml<'input>, key: &str) -> Result<&'y Yaml<'input>, TemplateError> {
    node.as_mapping_get(key).ok_or_else(|| unusable(key, "the key is missing"))
}

fn path<'y, 'input>(node: &'y Yaml<'input>, keys: &[&str]) -> Option<&'y Yaml<'input>> {
    keys.iter().try_fold(node, |node, key| node.as_mapping_get(key))
}

/// Converts YAML to JSON. Replaces `Ref` and `Fn::Sub` of parameters in the long and the short form, and `Fn::If` in the
/// long form.
fn resolve(node: &Yaml, parameters: &BTreeMap<&str, &str>, place: &str) -> Result<Value, TemplateError> {
    let parameter = |name: &str| {
        let value = parameters
            .get(name)
            .ok_or_else(|| unusable(place, "only references to the template's parameters are supported"));
        value.map(|value| (*value).to_owned())
    };
    let substitute = |text: &str| {
        let mut rest = text;
        let mut whole = String::new();
        while let Some((before, reference)) = rest.split_once("${") {
            let (name, after) = reference.split_once('}').ok_or_else(|| unusable(place, "a ${ is not closed"))?;
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
            _ => Err(unusable(place, "only !Ref and !Sub are supported")),
        },
        Yaml::Mapping(mapping) => {
            if let (1, Some((key, value))) = (mapping.len(), mapping.iter().next()) {
                match (key.as_str(), value.as_str()) {
                    (Some("Ref"), Some(name)) => return parameter(name).map(Value::String),
                    (Some("Fn::Sub"), Some(text)) => return substitute(text),
                    _ => {}
                }
                // Every condition checks that an optional parameter is set. Here, none is set.
                if let (Some("Fn::If"), Yaml::Sequence(items)) = (key.as_str(), value)
                    && let [_, _, otherwise] = items.as_slice()
                {
                    return resolve(otherwise, parameters, place);
                }
            }
            let entries = mapping.iter().map(|(key, value)| {
                let key = key.as_str().ok_or_else(|| unusable(place, "a key is not a string"))?;
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
        Yaml::Representation(..) | Yaml::Alias(_) | Yaml::BadValue => {
            Err(unusable(place, "this value is not supported"))
        }
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
    fn project_template_is_parsed() {
        let template = Template::parse(BUILT_IN, &parameters()).unwrap();
        assert!(template.table.contains_key("KeySchema"));
        assert!(template.functions.contains_key("reconcile"));
    }

    #[test]
    fn template_pattern_matches_only_deployment_and_cluster() {
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
    fn template_references_are_resolved_in_both_forms() {
        let text =
            "a: !Sub '${Deployment}/'\nb: {'Fn::Sub': '${Deployment}/'}\nc: !Ref ClusterArn\nd: {Ref: ClusterArn}";
        let documents = Yaml::load_from_str(text).unwrap();
        let resolved = resolve(&documents[0], &parameters(), "test").unwrap();
        assert_eq!(resolved["a"], "dev/");
        assert_eq!(resolved["a"], resolved["b"]);
        assert_eq!(resolved["c"], resolved["d"]);
    }

    #[test]
    fn template_if_selects_branch_without_option() {
        let documents = Yaml::load_from_str("a: {'Fn::If': [HasMore, {Ref: More}, [{Ref: ClusterArn}]]}").unwrap();
        let resolved = resolve(&documents[0], &parameters(), "test").unwrap();
        assert_eq!(resolved["a"], json!([parameters()["ClusterArn"]]));
    }

    #[test]
    fn template_resource_reference_is_rejected() {
        let documents = Yaml::load_from_str("a: !GetAtt Table.Arn").unwrap();
        assert!(resolve(&documents[0], &parameters(), "test").is_err());
    }
}
