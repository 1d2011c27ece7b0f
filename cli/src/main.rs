//! `ecs-bridge`: runs the local stack; submits, follows, shows, lists and stops submissions; shows and changes pools; examines
//! deployments, and what AWS does.

// Parts of the modules are for the commands of `account` only.
#![cfg_attr(not(feature = "account"), allow(dead_code))]

#[cfg(feature = "account")]
mod account;
mod bridge;
#[cfg(feature = "account")]
mod doctor;
mod local;
#[cfg(feature = "account")]
mod logs;
mod output;
mod pools;
mod profile;
mod ps;
mod show;
mod stats;
mod stop;
mod submit;
mod submit_file;
#[cfg(feature = "account")]
mod verify;
mod wait;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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
    #[cfg(feature = "account")]
    Logs(logs::Logs),
    Ps(ps::Ps),
    Stats(stats::Stats),
    #[cfg(feature = "account")]
    Doctor(doctor::Doctor),
    #[cfg(feature = "account")]
    VerifyAws(verify::VerifyAws),
    Stop(stop::Stop),
    Wait(wait::Wait),
    Profile(profile::Profile),
    Pools(pools::Pools),
    Pool(pools::PoolCommand),
    /// Write the completions of a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages, one for each command
    Man {
        /// The folder to write them into
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Local(command) => ended(command.run()),
        Command::Submit(command) => command.run(),
        Command::Wait(command) => command.run(),
        Command::Show(command) => ended(command.run()),
        #[cfg(feature = "account")]
        Command::Logs(command) => ended(command.run()),
        #[cfg(feature = "account")]
        Command::Doctor(command) => command.run(),
        #[cfg(feature = "account")]
        Command::VerifyAws(command) => command.run(),
        Command::Ps(command) => ended(command.run()),
        Command::Stats(command) => ended(command.run()),
        Command::Profile(command) => ended(command.run()),
        Command::Pools(command) => ended(command.run()),
        Command::Pool(command) => ended(command.run()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ecs-bridge", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { dir } => {
            ended(std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir)))
        }
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
