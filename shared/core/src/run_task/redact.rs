//! Redaction of commands and environments in error messages of ECS.

use std::{collections::HashSet, ops::Range};

use serde_json::{Map, Value};

/// The length of the shortest redacted fragment of a command or an environment, in characters other than white space.
/// Redaction of shorter ones would make ordinary text unreadable, and they disclose little.
const FRAGMENT: usize = 6;

const REDACTED: &str = "[redacted]";

/// Redacts command and environment of the request in `body` in a text of ECS, because an error may quote the request.
///
/// Replaces every run of 6 or more characters that occurs in an argument of a command or in the value of a variable,
/// whether whole, cut off, wrapped by white space, or escaped as in JSON, once or twice. Linear in both lengths.
pub fn redact(message: &str, body: &str) -> String {
    redact_requests(message, &[serde_json::from_str(body).unwrap_or_default()])
}

pub(super) fn redact_requests(message: &str, requests: &[Map<String, Value>]) -> String {
    let overrides = requests.iter().filter_map(|request| request.get("overrides")?.get("containerOverrides"));
    let containers = overrides.filter_map(Value::as_array).flatten();
    let secrets = containers.flat_map(|container| {
        let list = |name| container.get(name).and_then(Value::as_array).into_iter().flatten();
        let values = list("environment").filter_map(|variable| variable.get("value"));
        list("command").chain(values).filter_map(Value::as_str)
    });
    let mut fragments = HashSet::new();
    for secret in secrets {
        let escaped = json_escaped(secret);
        for form in [secret, &escaped, &json_escaped(&escaped)] {
            fragments.extend(visible(form).collect::<Vec<_>>().windows(FRAGMENT).map(text_of));
        }
    }
    // The visible characters of the message, with their positions.
    let seen: Vec<_> = message.char_indices().filter(|(_, character)| !character.is_whitespace()).collect();
    let mut spans: Vec<Range<usize>> = Vec::new();
    for window in seen.windows(FRAGMENT) {
        let [(begin, _), .., (last, character)] = window else { continue };
        let end = last + character.len_utf8();
        if fragments.contains(&window.iter().map(|(_, character)| *character).collect::<String>()) {
            match spans.last_mut().filter(|span| *begin <= span.end) {
                Some(span) => span.end = end,
                None => spans.push(*begin..end),
            }
        }
    }
    let mut redacted = String::with_capacity(message.len());
    let mut from = 0;
    for span in spans {
        redacted.push_str(message.get(from..span.start).unwrap_or_default());
        redacted.push_str(REDACTED);
        from = span.end;
    }
    redacted.push_str(message.get(from..).unwrap_or_default());
    redacted
}

fn visible(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|character| !character.is_whitespace())
}

fn text_of(characters: &[char]) -> String {
    characters.iter().collect()
}

/// Returns `text` as it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}
