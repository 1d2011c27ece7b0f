//! What the bridge does at AWS: its table, ECS, and the loop of reading, deciding, writing and acting.
//!
//! Concrete SDK clients, no trait between: tests answer at the wire. Nothing here decides; that is
//! [`ecs_bridge_core::decide`].

mod bridge;
mod clients;
mod ecs;
mod table;
pub mod telemetry;

pub use bridge::{Bridge, BridgeError, Settled, learnt, now};
pub use clients::{Clients, warm_up};
pub use ecs::{DESCRIBED, Described, Ecs, EcsError};
pub use table::{Created, DueRecord, Table, TableError};
