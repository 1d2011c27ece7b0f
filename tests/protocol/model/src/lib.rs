//! The bridge in a small world, of which a model checker visits every state.
//!
//! The decisions are the real ones: [`ecs_bridge_core::decide`], on real records. Around them is a model of all that
//! can go wrong: ECS with its tokens, its forgetfulness and its late answers, EventBridge, the conditional writes of
//! the table, functions that stop at any point, and a caller that stops what it submitted. [`World`] is a state of it,
//! [`Step`] is what may happen next, [`Promise`] is what must never be broken, and a [`Mutation`] is a bug that the
//! model must find. [`replay`] checks the history of a real run by the same promises.
//!
//! Time is counted in ticks. The timers are a few ticks long, in the order in which the real ones stand to each other
//! and to what ECS keeps; a bound with a minute to spare in production is as tight here as it can be.
//!
//! [`Pools`] is a world of its own, of submissions that wait for runners, and [`PoolSizing`] another, of how many
//! runners there are.
//!
//! Not modelled: the retention of ended records (weeks), and the launch rate (without a launch token a record
//! stays `queued`, which may happen here at any time).

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
pub use promise::{NOTIFIED, Promise, SETTLED, end_is_reached};
pub use scenario::Scenario;
pub use sizing::{PoolSizing, SizingBug, SizingPromise, SizingStep, SizingWorld};
pub use world::{Lane, Step, World};
