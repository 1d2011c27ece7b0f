//! Pools: profiles whose containers are runners, which wait for commands and pull them from the table.
//!
//! A waiting submission and a runner are rows like any other, with [`Pooled`] or [`Runner`] beside them. How they change is
//! [`crate::decide`]'s; here are their parts, and how many runners a pool needs.

mod key;
mod row;
mod runner;
mod sizing;
mod spec;
#[cfg(test)]
pub(crate) mod tests;
mod wait;

pub use self::key::{Pool, PoolKey, WORK_BYTES};
pub use self::row::{Batch, Failing, PoolRow, Takes, row_key, taken_key};
pub use self::runner::{
    Incarnation, InvalidIncarnation, Phase, Pooled, Process, RUNNER_PREFIX, Runner, TokenHash, is_runner,
};
pub use self::sizing::{Count, Sizing};
pub use self::spec::{RunnerApiAddress, Spec};
pub use wait::{Symptoms, WaitReason};
