//! The bridge's AWS calls: the table, ECS, and the loop that reads, decides, writes and acts.
//!
//! The SDK clients are concrete, without a trait in between, because tests replace AWS at the wire. Only
//! [`ecs_bridge_core::decide`] makes decisions.

mod bridge;
mod clients;
mod doorbell;
mod ecs;
pub mod http;
mod notify;
mod profiles;
mod table;
pub mod telemetry;
mod trigger;

pub use bridge::{Bridge, BridgeError, Settled, now};
pub use clients::{Clients, warm_up};
pub use doorbell::{ASK, DoorbellError, Doorbells};
pub use ecs::{DESCRIBED, Described, Ecs, EcsError};
pub use profiles::read_profiles;
pub use table::{Begun, Created, DueRecord, Page, Ranked, Table, TableError, WOKEN_LOOKS};
pub use trigger::Wake;
