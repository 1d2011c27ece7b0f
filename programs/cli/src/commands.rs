//! The commands, one module each.

#[cfg(feature = "account")]
pub mod doctor;
pub mod local;
pub mod logs;
pub mod pool;
pub mod pool_list;
pub mod pool_set;
pub mod ps;
pub mod show;
pub mod stats;
pub mod stop;
pub mod submit;
pub mod submit_file;
#[cfg(feature = "account")]
pub mod verify;
pub mod wait;
