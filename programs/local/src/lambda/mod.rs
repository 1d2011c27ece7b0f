//! A small Lambda: functions with several processes each, invoked through a queue.
//!
//! It responds, retries and discards invocations as Lambda does, and replaces processes that die or time out. It does not
//! emulate scaling (a function has a fixed number of processes, and calls wait for one), freezing, versions and
//! permissions.

mod function;
mod invoke;
mod queue;
mod sandbox;
mod service;
mod url;

pub use function::{FunctionSettings, MAX_EVENT, MAX_PAYLOAD, Outcome};
pub use invoke::router as invoke_router;
pub use service::{Lambda, LambdaSettings, StartError, UnknownFunction};
pub use url::router as url_router;
