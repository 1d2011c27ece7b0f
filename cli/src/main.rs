//! `ecs-bridge`: runs the local stack, submits, shows, lists, sums up and stops submissions, and shows and changes pools.

mod bridge;
mod local;
mod output;
mod pools;
mod profile;
mod ps;
mod show;
mod stats;
mod stop;
mod submit;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ecs-bridge", version, about = "Run commands on Amazon ECS and learn how they ended")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Local(local::Local),
    Submit(submit::Submit),
    Show(show::Show),
    Ps(ps::Ps),
    Stats(stats::Stats),
    Stop(stop::Stop),
    Profile(profile::Profile),
    Pools(pools::Pools),
    Pool(pools::PoolCommand),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Local(command) => ended(command.run()),
        Command::Submit(command) => command.run(),
        Command::Show(command) => ended(command.run()),
        Command::Ps(command) => ended(command.run()),
        Command::Stats(command) => ended(command.run()),
        Command::Profile(command) => ended(command.run()),
        Command::Pools(command) => ended(command.run()),
        Command::Pool(command) => ended(command.run()),
        Command::Stop(command) => command.run().unwrap_or_else(|error| ended(Err(error))),
    }
}

fn ended<E: Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}
