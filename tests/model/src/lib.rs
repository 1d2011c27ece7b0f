//! The bridge in a small world, for a model checker to walk through whole.
//!
//! The decisions are the real ones: [`ecs_bridge_core::decide`], on real records. Around them is a model of all that
//! can go wrong: ECS with its tokens, its forgetfulness and its late answers, EventBridge, the conditional writes of
//! the table, functions that stop at any point, and a caller that changes its mind. [`World`] is a state of it,
//! [`Step`] is what may happen next, [`Promise`] is what must never be broken, and a [`Mutation`] is a bug put in to
//! see that it is found.
//!
//! Time is counted in ticks. The timers are a few ticks long, in the order in which the real ones stand to each other
//! and to what ECS keeps; a bound that is safe with a minute to spare in earnest is as tight here as it can be.
//!
//! Not modelled: the retention of ended records (weeks), and the launch rate (whoever has no token leaves the record
//! `queued`, and that may happen here at any time).

mod ecs;
mod hashed;
mod mutation;
mod promise;
pub mod replay;
mod scenario;
mod world;

pub use mutation::Mutation;
pub use promise::{Promise, SETTLED, end_is_reached};
pub use scenario::Scenario;
pub use world::{Lane, Step, World};
