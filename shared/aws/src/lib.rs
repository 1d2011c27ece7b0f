//! The bridge's calls to AWS: its table, ECS, and the loop of reading, deciding, writing and acting.
//!
//! Concrete SDK clients without a trait in between: tests answer at the wire. Decisions are
//! [`ecs_bridge_core::decide`]'s alone.

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
