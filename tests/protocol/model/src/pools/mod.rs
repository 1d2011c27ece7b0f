//! Pools in a small world: submissions that wait, runners that claim them, and the faults of both.
//!
//! The decisions are the real ones, on real records. The steps of runner-api, task-state and reconcile follow their
//! loops: each read, each conditional write and each call is a separate step. Steps of other processes come in between,
//! and a function can stop after any of them. The program of a runner polls, starts each command once, and reports its
//! result. It can die, start again in its container, or be stopped by ECS.
//!
//! Launches are not modeled here: all runners have their tasks from the beginning.
//!
//! [`scenario`] sets up a world, [`world`] is a state of it, [`steps`] lists the steps and applies them. [`function`]
//! has the types of the functions at work, [`runner_api`] the steps of a poll, and [`events`] those of task-state and
//! reconcile.

mod bug;
mod events;
mod function;
mod promise;
mod runner_api;
mod scenario;
mod steps;
mod world;

pub use bug::PoolBug;
pub use promise::PoolPromise;
pub use scenario::Pools;
pub use steps::PoolStep;
pub use world::PoolWorld;
