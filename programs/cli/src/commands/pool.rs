//! `ecs-bridge pool`

use clap::{Args, Subcommand};
use thiserror::Error;

use super::pool_list::PoolList;
use super::pool_set::{PoolSet, PoolSetError};
use crate::error::CommandError;

/// List or change pools
#[derive(Args)]
pub struct Pool {
    #[command(subcommand)]
    command: PoolSubcommand,
}

#[derive(Subcommand)]
enum PoolSubcommand {
    List(PoolList),
    Set(PoolSet),
}

/// The cause of a failed command.
#[derive(Debug, Error)]
pub enum PoolError {
    /// The list failed.
    #[error(transparent)]
    List(#[from] CommandError),
    /// The change failed.
    #[error(transparent)]
    Set(#[from] PoolSetError),
}

impl Pool {
    pub fn run(self) -> Result<(), PoolError> {
        match self.command {
            PoolSubcommand::List(list) => Ok(list.run()?),
            PoolSubcommand::Set(set) => Ok(set.run()?),
        }
    }
}
