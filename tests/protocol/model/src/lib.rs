//! A model of the bridge in small worlds. A model checker visits every state of each world.
//!
//! The decisions are the real ones: [`ecs_bridge_core::decide`], on real records. The model around them contains the
//! faults: lost and late responses of ECS, expired client tokens, lost and repeated events, functions that stop at any
//! step, and callers that repeat or stop their submissions. [`World`] is a state, [`Step`] is a step to the next state,
//! [`Promise`] is a guarantee that must hold in every state, and a [`Mutation`] is a seeded bug that the model must find.
//! [`replay`] checks the history of a real run against the same guarantees.
//!
//! Time is counted in ticks. Each timer is a few ticks long. Their order is the order of the real timers, also relative to
//! the retention of ECS. Margins of minutes in production are as small as possible here.
//!
//! [`Pools`] is a separate world of submissions that wait for runners. [`PoolSizing`] is a separate world of the number
//! of runners.
//!
//! Not modeled are the retention of ended records (weeks) and the launch rate. Without a launch token, a record stays
//! `queued`, which can happen here at any time.

mod ecs;
mod hashed;
mod mutation;
mod pools;
mod promise;
pub mod replay;
mod scenario;
mod sizing;
mod world;

pub use mutation::Mutation;
pub use pools::{PoolBug, PoolPromise, PoolStep, PoolWorld, Pools};
pub use promise::Promise;
pub use scenario::Scenario;
pub use sizing::{PoolSizing, SizingBug, SizingPromise, SizingStep, SizingWorld};
pub use world::{NOTIFIED, SETTLED, Step, SubmissionState, World, terminal_state_is_reached};
