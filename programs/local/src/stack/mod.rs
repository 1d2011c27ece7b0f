//! The whole stack. It starts all parts, runs until it must end, and ends everything that it started.
//!
//! [`run`] is the way in, [`parts`] starts the parts, [`settings`] makes their settings from the options, and [`files`]
//! has the files of a run.

mod error;
mod files;
mod names;
mod parts;
mod ready;
mod run;
mod settings;

pub use error::LocalError;
pub use files::{default_ready_file, is_starting};
pub use parts::Stack;
pub use ready::Ready;
pub use run::{WATCHDOG, run};
