//! The ECS emulator: one cluster, the JSON protocol of ECS, and a local process for each container.
//!
//! It keeps all tasks until the end of the run, but its API returns a stopped task only for as long as ECS does.
//! [`api`] is the way in and [`state`] holds the tasks. [`launch`], [`tasks`] and [`resources`] have the operations, and
//! [`lifecycle`] runs a task. [`control`] has the routes for tests.

mod api;
mod behavior;
mod changes;
mod container;
mod control;
mod definition;
mod error;
mod launch;
mod lifecycle;
mod notifications;
mod queues;
mod resources;
mod rules;
mod run_task;
mod settings;
mod state;
mod task;
mod tasks;

pub use api::router;
pub use behavior::{SHAPE_TAG, SHAPE_VARIABLE, Shape, Shapes, UnknownShape};
pub use definition::{DefinitionError, TaskDefinitions};
pub use queues::MessageFaults;
pub use settings::{EcsSettings, Throttle};
pub use state::Ecs;
pub use task::Location;
