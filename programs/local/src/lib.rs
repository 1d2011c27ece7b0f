//! An emulator of AWS on one machine, to try the bridge, to develop with it, and to test it.
//!
//! It shares no code with the functions that it runs, because no test could find a mistake that both make. Its parts are a
//! [`lambda`] with real processes, DynamoDB by dynoxide, an [`ecs`] whose containers are processes, and an event bus
//! ([`events`]) that filters by the deployment's own template ([`template`], [`pattern`]). Injected faults depend on a
//! seed ([`rng`]) and are counted ([`faults`]).

pub mod clock;
pub mod dynamodb;
pub mod ecs;
pub mod events;
pub mod faults;
pub mod http;
pub mod index_lag;
pub mod lambda;
pub mod options;
pub mod pattern;
pub mod process;
pub mod rng;
pub mod sessions;
pub mod stack;
pub mod template;

pub use options::Options;
pub use stack::{LocalError, Ready, Stack, default_ready_file, is_starting, run};
