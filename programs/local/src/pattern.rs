//! EventBridge's event patterns: [`Pattern::parse`] refuses what EventBridge refuses, [`Pattern::matches`] tests an event.
//! Nothing here is specific to ECS.
//!
//! The keys of a pattern are joined by "and", the values of an array by "or". If the event holds an array of objects, one
//! object must match everything below it in the pattern; only `{"exists": false}` applies to all of them.

use std::net::IpAddr;

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
    Numeric(Vec<(Comparison, f64)>),
    Cidr(IpAddr, u8),
    Text(Text),
    /// None of these values, and none of these strings. Matches strings and numbers only.
    AnythingBut(Vec<Value>, Vec<Text>),
}

#[derive(Clone, Debug)]
enum Text {
    Prefix(String),
    PrefixIgnoreCase(String),
    Suffix(String),
    SuffixIgnoreCase(String),
    EqualsIgnoreCase(String),
    Wildcard(Vec<Glob>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Glob {
    Character(char),
    Star,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a pattern is not valid.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// Not an object with at least one field.
    #[error("an event pattern must be an object with at least one field")]
    NotAnObject,
    /// The value of a field is neither an object nor an array.
    #[error("{0:?} must be an object or an array")]
    NotAField(String),
    /// An array of tests is empty.
    #[error("{0:?} must not be an empty array")]
    NoTests(String),
    /// `$or` has fewer than two patterns.
    #[error("$or must be an array of at least two objects")]
    BadOr,
    /// A match expression has no or several keys.
    #[error("{0:?}: a match expression must have exactly one key")]
    NotOneKey(String),
    /// An array inside an array of tests.
    #[error("{0:?}: its tests must not include an array")]
    NestedArray(String),
    /// An operator that EventBridge does not have.
    #[error("{field:?}: unknown match type {operator:?}")]
    UnknownOperator {
        /// The field.
        field: String,
        /// The operator.
        operator: String,
    },
    /// An operator with an invalid operand.
    #[error("{field:?}: invalid operand of {operator:?}")]
    BadOperand {
        /// The field.
        field: String,
        /// The operator.
        operator: String,
    },
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// If EventBridge would refuse the pattern.
    pub fn parse(pattern: &Value) -> Result<Self, PatternError> {
        let object = pattern.as_object().filter(|object| !object.is_empty()).ok_or(PatternError::NotAnObject)?;
        Fields::parse(object).map(Self)
    }

    /// Whether the event matches.
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

    /// Whether one of the objects at a path of the event matches. `{"exists": false}` must hold for all of them.
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

/// The values of this name in each of the nodes, arrays flattened.
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
        let (operator, operand) = only_entry(field, expression)?;
        let bad = || PatternError::BadOperand { field: field.to_owned(), operator: operator.to_owned() };
        match operator {
            "exists" => operand.as_bool().map(Self::Exists).ok_or_else(bad),
            "numeric" => comparisons(operand).map(Self::Numeric).ok_or_else(bad),
            "cidr" => cidr(operand).ok_or_else(bad),
            "anything-but" => match operand {
                Value::Object(inner) => {
                    let (operator, operands) = only_entry(field, inner)?;
                    let texts = one_or_more(operands).iter().map(|operand| Text::parse(field, operator, operand));
                    Ok(Self::AnythingBut(Vec::new(), texts.collect::<Result<_, _>>()?))
                }
                values => {
                    let values = one_or_more(values);
                    let plain = values.iter().all(|value| value.is_string() || value.is_number());
                    if plain && !values.is_empty() {
                        Ok(Self::AnythingBut(values.to_vec(), Vec::new()))
                    } else {
                        Err(bad())
                    }
                }
            },
            _ => Text::parse(field, operator, operand).map(Self::Text),
        }
    }

    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Exists(wanted) => *wanted,
            Self::Exactly(exact) => same(exact, value),
            Self::Numeric(comparisons) => {
                value.as_f64().is_some_and(|number| comparisons.iter().all(|(by, bound)| by.holds(number, *bound)))
            }
            Self::Cidr(network, bits) => value
                .as_str()
                .and_then(|text| text.parse::<IpAddr>().ok())
                .is_some_and(|address| masked(address, *bits) == masked(*network, *bits)),
            Self::Text(text) => text.passes(value),
            Self::AnythingBut(values, texts) => {
                !values.iter().any(|other| same(other, value)) && !texts.iter().any(|text| text.passes(value))
            }
        }
    }
}

/// Numbers are compared as numbers, so that 1 and 1.0 are the same.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

fn only_entry<'a>(field: &str, expression: &'a Map<String, Value>) -> Result<(&'a str, &'a Value), PatternError> {
    let mut entries = expression.iter();
    match (entries.next(), entries.next()) {
        (Some((operator, operand)), None) => Ok((operator, operand)),
        _ => Err(PatternError::NotOneKey(field.to_owned())),
    }
}

fn one_or_more(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn comparisons(operand: &Value) -> Option<Vec<(Comparison, f64)>> {
    let parts = operand.as_array()?;
    if parts.is_empty() || parts.len() > 4 {
        return None;
    }
    parts
        .chunks(2)
        .map(|pair| match pair {
            [operator, bound] => Some((Comparison::parse(operator.as_str()?)?, bound.as_f64()?)),
            _ => None,
        })
        .collect()
}

fn cidr(operand: &Value) -> Option<Test> {
    let (network, bits) = operand.as_str()?.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    bits.parse().ok().filter(|bits| *bits <= most).map(|bits| Test::Cidr(network, bits))
}

/// The network part of an address; none if the address has fewer bits.
fn masked(address: IpAddr, bits: u8) -> Option<(bool, u128)> {
    let (v4, value, width) = match address {
        IpAddr::V4(address) => (true, u128::from(address.to_bits()), 32_u32),
        IpAddr::V6(address) => (false, address.to_bits(), 128),
    };
    let rest = width.checked_sub(u32::from(bits))?;
    Some((v4, value.checked_shr(rest).unwrap_or(0)))
}

impl Comparison {
    fn parse(operator: &str) -> Option<Self> {
        Some(match operator {
            "=" => Self::Equal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Equal => number.total_cmp(&bound).is_eq(),
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Greater => number > bound,
            Self::GreaterOrEqual => number >= bound,
        }
    }
}

impl Text {
    fn parse(field: &str, operator: &str, operand: &Value) -> Result<Self, PatternError> {
        let bad = || PatternError::BadOperand { field: field.to_owned(), operator: operator.to_owned() };
        let text = || operand.as_str().map(str::to_owned).ok_or_else(bad);
        // "prefix" and "suffix" also accept {"equals-ignore-case": "..."}.
        let ignoring_case = || match operand.as_object() {
            None => Ok(None),
            Some(inner) => match only_entry(field, inner)? {
                ("equals-ignore-case", Value::String(text)) => Ok(Some(text.to_lowercase())),
                _ => Err(bad()),
            },
        };
        match operator {
            "prefix" => {
                ignoring_case()?.map_or_else(|| text().map(Self::Prefix), |text| Ok(Self::PrefixIgnoreCase(text)))
            }
            "suffix" => {
                ignoring_case()?.map_or_else(|| text().map(Self::Suffix), |text| Ok(Self::SuffixIgnoreCase(text)))
            }
            "equals-ignore-case" => text().map(|text| Self::EqualsIgnoreCase(text.to_lowercase())),
            "wildcard" => text().and_then(|text| glob(&text).ok_or_else(bad)).map(Self::Wildcard),
            _ => Err(PatternError::UnknownOperator { field: field.to_owned(), operator: operator.to_owned() }),
        }
    }

    fn passes(&self, value: &Value) -> bool {
        let Some(value) = value.as_str() else { return false };
        match self {
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::PrefixIgnoreCase(prefix) => value.to_lowercase().starts_with(prefix),
            Self::Suffix(suffix) => value.ends_with(suffix),
            Self::SuffixIgnoreCase(suffix) => value.to_lowercase().ends_with(suffix),
            Self::EqualsIgnoreCase(text) => value.to_lowercase() == *text,
            Self::Wildcard(glob) => glob_matches(glob, value),
        }
    }
}

/// Parses a wildcard: `*` matches any characters, `\*` and `\\` themselves. Two stars in a row are refused, as EventBridge
/// does.
fn glob(text: &str) -> Option<Vec<Glob>> {
    let mut glob = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        glob.push(match character {
            '*' if glob.last() == Some(&Glob::Star) => return None,
            '*' => Glob::Star,
            '\\' => Glob::Character(characters.next().filter(|escaped| matches!(escaped, '*' | '\\'))?),
            other => Glob::Character(other),
        });
    }
    Some(glob)
}

fn glob_matches(glob: &[Glob], value: &str) -> bool {
    // The prefixes of the glob that match the text so far. Without backtracking, the time is linear.
    let mut reached = vec![false; glob.len() + 1];
    let skip_stars = |reached: &mut Vec<bool>| {
        for (at, part) in glob.iter().enumerate() {
            if *part == Glob::Star
                && reached.get(at) == Some(&true)
                && let Some(next) = reached.get_mut(at + 1)
            {
                *next = true;
            }
        }
    };
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    skip_stars(&mut reached);
    for character in value.chars() {
        let mut next = vec![false; glob.len() + 1];
        for (at, part) in glob.iter().enumerate().filter(|(at, _)| reached.get(*at) == Some(&true)) {
            let to = match part {
                Glob::Star => at,
                Glob::Character(expected) if *expected == character => at + 1,
                Glob::Character(_) => continue,
            };
            if let Some(slot) = next.get_mut(to) {
                *slot = true;
            }
        }
        skip_stars(&mut next);
        reached = next;
    }
    reached.last() == Some(&true)
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
        let pattern = json!({"containers": {"name": ["main"], "exitCode": [{"anything-but": 0}]}});
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
            (json!({"prefix": {"equals-ignore-case": "Ab"}}), json!("aBc"), json!("ba")),
            (json!({"suffix": ".log"}), json!("x.log"), json!("x.logs")),
            (json!({"suffix": {"equals-ignore-case": "LOG"}}), json!("x.log"), json!("log.x")),
            (json!({"equals-ignore-case": "Yes"}), json!("yES"), json!("yes ")),
            (json!({"wildcard": "a*c\\*d"}), json!("axbc*d"), json!("acd")),
            (json!({"wildcard": "*b*"}), json!("abc"), json!("ac")),
            (json!({"anything-but": ["a", 1]}), json!("b"), json!(1)),
            (json!({"anything-but": {"prefix": ["a", "b"]}}), json!("c"), json!("bc")),
            (json!({"numeric": [">", 0, "<=", 5.5]}), json!(5.5), json!(0)),
            (json!({"cidr": "10.0.0.0/24"}), json!("10.0.0.255"), json!("10.0.1.0")),
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
            json!({"a": [{"regex": "x"}]}),
            json!({"a": [{"prefix": 1}]}),
            json!({"a": [{"numeric": ["~", 1]}]}),
            json!({"a": [{"numeric": ["<"]}]}),
            json!({"a": [{"wildcard": "a**"}]}),
            json!({"a": [{"anything-but": null}]}),
            json!({"$or": [{"a": [1]}]}),
        ] {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern} was taken");
        }
    }
}
