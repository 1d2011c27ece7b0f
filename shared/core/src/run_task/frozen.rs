//! The merged request, as the record stores it and as RunTask receives it.

use std::io::{self, Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    merge::{add_environment, set_command},
    redact::redact_requests,
};
use crate::id::StartedBy;

/// The limit on a frozen request, in bytes: DynamoDB's 400 KB for an item less 16 KB for the rest of the record.
pub const REQUEST_BYTES: usize = 384 * 1024;

/// A command and its environment, as a runner receives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables to set over those of the runner's container.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// A variable, as RunTask spells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default)]
    pub value: String,
}

/// A merged request as the table stores it: deflated JSON without the parameters that depend on the attempt. It is one
/// object, or a list with the requests of the profile's own `run_task` and of its fallbacks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrozenRequest(#[serde(with = "serde_bytes")] pub(super) Vec<u8>);

impl FrozenRequest {
    /// Freezes the requests of all capacity options.
    pub fn freeze(choices: &[Map<String, Value>]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        let written = match choices {
            [only] => serde_json::to_writer(&mut encoder, only),
            _ => serde_json::to_writer(&mut encoder, choices),
        };
        // Writing to memory does not fail. If it did, `body` would return the error.
        let bytes = written.ok().and_then(|()| {
            encoder.flush().ok()?;
            encoder.finish().ok()
        });
        Self(bytes.unwrap_or_default())
    }

    /// Returns its size in the table in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    fn json(&self) -> io::Result<String> {
        let mut request = String::new();
        DeflateDecoder::new(&*self.0).read_to_string(&mut request)?;
        Ok(request)
    }

    /// Returns the requests of all capacity options.
    fn choices(&self) -> io::Result<Vec<Map<String, Value>>> {
        let json = self.json()?;
        Ok(if json.starts_with('[') { serde_json::from_str(&json)? } else { vec![serde_json::from_str(&json)?] })
    }

    /// Returns the request of one capacity option as JSON.
    fn choice(&self, choice: u8) -> io::Result<String> {
        let json = self.json()?;
        if !json.starts_with('[') {
            return if choice == 0 { Ok(json) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        let choices: Vec<&RawValue> = serde_json::from_str(&json)?;
        Ok(choices.get(usize::from(choice)).ok_or(io::ErrorKind::InvalidData)?.get().to_owned())
    }

    /// Redacts a text of ECS about a task of one of these requests.
    pub(crate) fn redact(&self, text: &str) -> String {
        // Bytes that are not a request have launched no task.
        redact_requests(text, &self.choices().unwrap_or_default())
    }

    /// Returns command and environment of the container `name`, which a runner needs.
    ///
    /// # Errors
    /// If the stored bytes are not a request with a command for that container.
    pub fn work(&self, name: &str) -> io::Result<Work> {
        let mut request: Value = serde_json::from_str(&self.choice(0)?)?;
        let containers = request.pointer_mut("/overrides/containerOverrides").and_then(Value::as_array_mut);
        let container = containers.into_iter().flatten().find(|entry| entry["name"] == name);
        Ok(serde_json::from_value(container.ok_or(io::ErrorKind::InvalidData)?.take())?)
    }

    /// Returns the requests with another command and additional variables for the container `name`.
    ///
    /// # Errors
    /// If the stored bytes are not a request.
    pub(crate) fn for_runner(&self, name: &str, command: &[String], variables: &[(&str, &str)]) -> io::Result<Self> {
        let mut choices = self.choices()?;
        for parameters in &mut choices {
            set_command(parameters, name, command);
            add_environment(parameters, name, variables);
        }
        Ok(Self::freeze(&choices))
    }

    /// Returns the body of the RunTask call for one attempt and capacity option.
    ///
    /// # Errors
    /// If the stored bytes are not a request, or do not hold that choice.
    pub fn body(&self, started_by: &StartedBy, choice: u8) -> io::Result<String> {
        let request = self.choice(choice)?;
        let rest = request.strip_prefix('{').ok_or(io::ErrorKind::InvalidData)?;
        let comma = if rest == "}" { "" } else { "," };
        // Neither contains a character that JSON escapes.
        let token = started_by.client_token(choice);
        Ok(format!(r#"{{"startedBy":"{started_by}","clientToken":"{token}"{comma}{rest}"#))
    }
}
