//! The world of submissions that have their own tasks.
//!
//! [`state`] is a state of it, [`step`] lists what can happen, and [`model`] offers and applies the steps. [`turn`]
//! applies a step to one submission, [`calls`] calls ECS, [`checks`] checks the guarantees of each step, and
//! [`properties`] those of each state. [`decision`] is the real decision with a seeded bug.

mod calls;
mod checks;
mod decision;
mod model;
mod properties;
mod state;
mod step;
mod turn;

pub use properties::{NOTIFIED, SETTLED, terminal_state_is_reached};
pub use state::{SubmissionState, World};
pub use step::Step;
