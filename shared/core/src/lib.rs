//! Contains the core of the ECS bridge: records, states, events, profiles, the RunTask request, and the decision.
//!
//! The crate deliberately has no clock, no I/O and no types of an AWS SDK. Time and events are arguments, so that the
//! same code runs in the functions, the property tests and the model checker.

pub mod advice;
pub mod api;
pub mod capacity;
pub mod config;
pub mod decide;
pub mod ecs_json;
pub mod event;
pub mod id;
pub mod launch_rate;
pub mod notify;
pub mod pool;
pub mod priority;
pub mod profile;
pub mod record;
pub mod rules;
pub mod run_task;
pub mod state;
pub mod task;
pub mod time;
pub mod wildcard;

pub use decide::{Action, Alarm, Decision, Input, LaunchAnswer, LaunchBlocker, decide};
pub use id::{AttemptNumber, Deployment, ProfileName, StartedBy, SubmissionId};
pub use record::{Attempt, Call, Record, shown};
pub use rules::{Rules, Timers};
pub use state::State;
pub use task::{Container, Task, task_id};
pub use time::Timestamp;
