//! EventBridge's event patterns, with the operators that the template's rule uses.
//!
//! A field matches one of its exact values, `{"prefix": TEXT}` or `{"exists": BOOL}`, and `$or` lists alternatives. The
//! local stack does not support the other operators of EventBridge. [`Pattern::parse`] reports them by their names, so a
//! template that uses one fails at the start instead of matching other events than on AWS.
//!
//! The keys of a pattern are joined by "and", the values of an array by "or". If the event contains an array of objects,
//! one object must match everything below it in the pattern. Only `{"exists": false}` applies to all of them. Source:
//! "Creating Amazon EventBridge event patterns" in the EventBridge User Guide, and its open-source engine, event-ruler.

use serde_json::{Map, Value};
use thiserror::Error;

/// A valid event pattern.
#[derive(Clone, Debug)]
pub struct Pattern(Fields);

/// The conditions on an object: all fields, and one branch of each `$or`.
#[derive(Clone, Debug, Default)]
struct Fields {
    fields: Vec<(String, Field)>,
    any_of: Vec<Vec<Fields>>,
}

#[derive(Clone, Debug)]
enum Field {
    Below(Fields),
    OneOf(Vec<Test>),
}

#[derive(Clone, Debug)]
enum Test {
    Exists(bool),
    Exactly(Value),
    Prefix(String),
}

/// The cause of an invalid pattern.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// The pattern is not an object with at least one field.
    #[error("an event pattern must be a JSON object with at least one field")]
    NotAnObject,
    /// The value of a field is neither an object nor an array.
    #[error("invalid field \"{0}\": must be an object with at least one field, or an array of values")]
    NotAField(String),
    /// An array of values is empty.
    #[error("invalid field \"{0}\": the array must contain at least one value")]
    NoTests(String),
    /// `$or` has fewer than two patterns.
    #[error("invalid \"$or\": must be an array of at least two objects, each with at least one field")]
    BadOr,
    /// A match expression has no key or several keys.
    #[error("invalid field \"{0}\": a match expression must have exactly one key, its operator")]
    NotOneKey(String),
    /// An array is inside an array of values.
    #[error("invalid field \"{0}\": the array must not contain an array")]
    NestedArray(String),
    /// The operator is not supported here. EventBridge may support it.
    #[error(
        "invalid field \"{field}\": the local stack does not support the operator \"{operator}\"; supported: {SUPPORTED}"
    )]
    UnsupportedOperator {
        /// The field.
        field: String,
        /// The operator.
        operator: String,
    },
    /// The operand of an operator is invalid.
    #[error("invalid field \"{field}\": the operand of \"{operator}\" must be {expected}")]
    BadOperand {
        /// The field.
        field: String,
        /// The operator.
        operator: &'static str,
        /// The valid operands.
        expected: &'static str,
    },
}

const SUPPORTED: &str = "exact values, \"prefix\", \"exists\" and \"$or\"";

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If EventBridge would reject the pattern, or the pattern uses an operator that is not supported here.
    pub fn parse(pattern: &Value) -> Result<Self, PatternError> {
        let object = pattern.as_object().filter(|object| !object.is_empty()).ok_or(PatternError::NotAnObject)?;
        Fields::parse(object).map(Self)
    }

    /// Returns true if the event matches.
    #[must_use]
    pub fn matches(&self, event: &Value) -> bool {
        self.0.match_any(&[event])
    }
}

impl Fields {
    fn parse(object: &Map<String, Value>) -> Result<Self, PatternError> {
        let mut parsed = Self::default();
        for (name, value) in object {
            if name == "$or" {
                let choices = value.as_array().filter(|choices| choices.len() > 1).ok_or(PatternError::BadOr)?;
                let choices = choices.iter().map(|choice| match choice {
                    Value::Object(object) if !object.is_empty() => Self::parse(object),
                    _ => Err(PatternError::BadOr),
                });
                parsed.any_of.push(choices.collect::<Result<_, _>>()?);
                continue;
            }
            let field = match value {
                Value::Object(object) if object.is_empty() => return Err(PatternError::NotAField(name.clone())),
                Value::Object(object) => Field::Below(Self::parse(object)?),
                Value::Array(tests) if tests.is_empty() => return Err(PatternError::NoTests(name.clone())),
                Value::Array(tests) => {
                    Field::OneOf(tests.iter().map(|test| Test::parse(name, test)).collect::<Result<_, _>>()?)
                }
                _ => return Err(PatternError::NotAField(name.clone())),
            };
            parsed.fields.push((name.clone(), field));
        }
        Ok(parsed)
    }

    /// Returns true if one of the objects at a path of the event matches. `{"exists": false}` must hold for all of them.
    fn match_any(&self, nodes: &[&Value]) -> bool {
        nodes.iter().any(|node| self.match_one(node, nodes))
    }

    fn match_one(&self, node: &Value, all: &[&Value]) -> bool {
        self.fields.iter().all(|(name, field)| {
            let here = children(&[node], name);
            let everywhere = children(all, name);
            match field {
                Field::Below(fields) if here.is_empty() => fields.match_one(&Value::Null, &everywhere),
                Field::Below(fields) => here.iter().any(|node| fields.match_one(node, &everywhere)),
                Field::OneOf(tests) => tests.iter().any(|test| match test {
                    Test::Exists(false) => !everywhere.iter().any(|value| is_leaf(value)),
                    test => here.iter().any(|value| is_leaf(value) && test.passes(value)),
                }),
            }
        }) && self.any_of.iter().all(|choices| choices.iter().any(|choice| choice.match_one(node, all)))
    }
}

/// Returns the values of this name in each of the nodes. Arrays are flattened.
fn children<'event>(nodes: &[&'event Value], name: &str) -> Vec<&'event Value> {
    fn open<'event>(value: &'event Value, into: &mut Vec<&'event Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| open(item, into)),
            other => into.push(other),
        }
    }
    let mut found = Vec::new();
    nodes.iter().filter_map(|node| node.get(name)).for_each(|value| open(value, &mut found));
    found
}

fn is_leaf(value: &Value) -> bool {
    !value.is_object()
}

impl Test {
    fn parse(field: &str, test: &Value) -> Result<Self, PatternError> {
        let expression = match test {
            Value::Object(expression) => expression,
            Value::Array(_) => return Err(PatternError::NestedArray(field.to_owned())),
            exact => return Ok(Self::Exactly(exact.clone())),
        };
        let mut entries = expression.iter();
        let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
            return Err(PatternError::NotOneKey(field.to_owned()));
        };
        let bad = |operator, expected| PatternError::BadOperand { field: field.to_owned(), operator, expected };
        match (operator.as_str(), operand) {
            ("exists", Value::Bool(wanted)) => Ok(Self::Exists(*wanted)),
            ("exists", _) => Err(bad("exists", "true or false")),
            ("prefix", Value::String(prefix)) => Ok(Self::Prefix(prefix.clone())),
            ("prefix", _) => Err(bad("prefix", "a string")),
            _ => Err(PatternError::UnsupportedOperator { field: field.to_owned(), operator: operator.clone() }),
        }
    }

    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Exactly(exact) => is_same(exact, value),
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
        }
    }
}

/// Compares numbers as numbers, so that 1 and 1.0 are the same.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(pattern: Value, event: Value) -> bool {
        Pattern::parse(&pattern).unwrap().matches(&event)
    }

    #[test]
    fn fields_must_match_any_of_their_values() {
        let pattern = json!({"source": ["aws.ecs"], "detail": {"lastStatus": ["RUNNING", "STOPPED"]}});
        assert!(matches(pattern.clone(), json!({"source": "aws.ecs", "detail": {"lastStatus": "STOPPED", "x": 1}})));
        assert!(!matches(pattern.clone(), json!({"source": "aws.ecs", "detail": {"lastStatus": "PENDING"}})));
        assert!(!matches(pattern, json!({"detail": {"lastStatus": "STOPPED"}})));
    }

    #[test]
    fn exists_matches_null_in_any_container() {
        let pattern = json!({"containers": {"exitCode": [{"exists": true}]}});
        assert!(matches(pattern.clone(), json!({"containers": [{"name": "a"}, {"name": "b", "exitCode": 0}]})));
        assert!(matches(pattern.clone(), json!({"containers": [{"exitCode": null}]})));
        assert!(!matches(pattern.clone(), json!({"containers": [{"name": "a"}]})));
        assert!(!matches(pattern, json!({"containers": []})));
    }

    #[test]
    fn exists_false_applies_to_all_array_objects() {
        let pattern = json!({"containers": {"exitCode": [{"exists": false}]}});
        assert!(!matches(pattern.clone(), json!({"containers": [{"name": "a"}, {"exitCode": 0}]})));
        assert!(matches(pattern.clone(), json!({"containers": [{"name": "a"}]})));
        assert!(matches(pattern.clone(), json!({"containers": []})));
        assert!(matches(pattern, json!({})));
    }

    #[test]
    fn array_object_must_match_all_conditions() {
        let pattern = json!({"containers": {"name": ["main"], "exitCode": [1]}});
        assert!(!matches(
            pattern.clone(),
            json!({"containers": [{"name": "main", "exitCode": 0}, {"name": "x", "exitCode": 1}]})
        ));
        assert!(matches(
            pattern,
            json!({"containers": [{"name": "x", "exitCode": 0}, {"name": "main", "exitCode": 1}]})
        ));
    }

    #[test]
    fn or_condition_combines_with_its_siblings() {
        let pattern = json!({"a": [1], "$or": [{"b": [2]}, {"c": {"d": [3]}}]});
        assert!(matches(pattern.clone(), json!({"a": 1.0, "b": 2})));
        assert!(matches(pattern.clone(), json!({"a": 1, "c": {"d": [9, 3]}})));
        assert!(!matches(pattern.clone(), json!({"a": 1, "b": 3})));
        assert!(!matches(pattern, json!({"b": 2})));
    }

    #[test]
    fn operators_match_as_documented() {
        for (test, yes, no) in [
            (json!({"prefix": "a/"}), json!("a/b"), json!("ab")),
            (json!({"exists": true}), json!(null), json!({"below": 1})),
            (json!(null), json!(null), json!("")),
        ] {
            assert!(matches(json!({"k": [test]}), json!({"k": yes})), "{test} should match {yes}");
            assert!(!matches(json!({"k": [test]}), json!({"k": no})), "{test} should not match {no}");
        }
    }

    #[test]
    fn invalid_pattern_is_rejected_as_by_eventbridge() {
        for pattern in [
            json!([]),
            json!({}),
            json!({"a": 1}),
            json!({"a": []}),
            json!({"a": [[1]]}),
            json!({"a": [{"prefix": "x", "suffix": "y"}]}),
            json!({"a": [{"prefix": 1}]}),
            json!({"a": [{"exists": "yes"}]}),
            json!({"$or": [{"a": [1]}]}),
        ] {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern} was accepted");
        }
    }

    #[test]
    fn unsupported_operator_is_named() {
        let error = Pattern::parse(&json!({"detail": {"version": [{"numeric": [">", 1]}]}})).unwrap_err();
        let expected = r#"invalid field "version": the local stack does not support the operator "numeric"; supported: exact values, "prefix", "exists" and "$or""#;
        assert_eq!(error.to_string(), expected);
    }
}
