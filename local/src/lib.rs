//! The stand-in for AWS on one machine: for trying the bridge, for developing against it, and for its tests.
//!
//! It shares no code with the functions that it runs: what both would get wrong alike, no test could find. The parts
//! are a [`lambda`] with real processes, DynamoDB by dynoxide, an [`ecs`] whose containers are processes, and an event
//! bus between them ([`events`]) that filters by the deployment's own template ([`template`], [`pattern`]). Whatever
//! is made to go wrong hangs on a seed ([`chance`]) and is counted ([`faults`]).

pub mod chance;
pub mod clock;
pub mod dynamodb;
pub mod ecs;
pub mod events;
pub mod faults;
pub mod http;
pub mod lambda;
pub mod options;
pub mod pattern;
pub mod process;
pub mod stack;
pub mod template;

pub use options::Options;
pub use stack::{LocalError, Ready, Stack, run};
