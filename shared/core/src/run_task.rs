//! RunTask's request: its shape, how overrides are merged into it, how it is stored, and how its secrets are redacted.
//!
//! It stays JSON in ECS's own spelling from the profile to the wire, so that an existing `RUN_TASK_KWARGS` works
//! unchanged. The shape below only finds misspelt and mistyped parameters.

mod allow;
mod frozen;
mod merge;
mod redact;
mod shape;
#[cfg(test)]
mod tests;

pub(crate) use self::allow::is_allow_entry;
pub(crate) use self::merge::{TAGS_OF_A_TASK, add_tags, is_environment_of, without_nulls};

pub use self::allow::not_allowed;
pub use self::frozen::{FrozenRequest, REQUEST_BYTES, Variable, Work};
pub use self::merge::{OVERRIDES_CHARACTERS, merge, overrides_characters, set_command};
pub use self::redact::redact;
pub use self::shape::{OURS, Problem, check};
