//! Processes: starts a command, reaps ended processes, and kills those that a command left behind.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use crate::api::Run;
use crate::config::OWN_VARIABLES;

/// A shell's exit code for a program that does not exist.
const NOT_FOUND: i32 = 127;
/// A shell's exit code for a program that cannot be executed.
const NOT_RUNNABLE: i32 = 126;

/// A process that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The process id.
    pub pid: Pid,
    /// The exit code as a shell reports it.
    pub exit_code: i32,
}

/// The cause of a failed start, as a shell reports it.
#[derive(Debug)]
pub struct NotStarted {
    /// The exit code: 126 or 127.
    pub exit_code: i32,
    /// The message for people.
    pub message: String,
}

/// Makes this process the parent of every orphan among its descendants, as PID 1 is by default. Also stops commands
/// of the same user from reading this process's environment, which holds the runner's token, through /proc.
///
/// # Errors
/// If the kernel rejects the calls.
#[cfg(target_os = "linux")]
pub fn adopt_orphans() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Any PID means "on".
    set_child_subreaper(Some(getpid()))?;
    Ok(())
}

/// Does nothing, because other systems have no subreapers.
#[cfg(not(target_os = "linux"))]
pub fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// Returns a program in its own process group, with the container's environment except this program's variables.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.process_group(0);
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Starts a command with stdin from /dev/null and the output of this process.
///
/// # Errors
/// If the command could not be started.
pub fn spawn(run: &Run) -> Result<Pid, NotStarted> {
    let Some((name, arguments)) = run.command.split_first() else {
        return Err(NotStarted { exit_code: NOT_FOUND, message: "the command is empty".into() });
    };
    let mut command = program(name);
    command.args(arguments).stdin(Stdio::null());
    command.envs(run.environment.iter().map(|variable| (&variable.name, &variable.value)));
    let child = command.spawn().map_err(|error| NotStarted {
        exit_code: if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE },
        // The message omits the arguments because they may hold secrets.
        message: format!("{name}: {error}"),
    })?;
    // `reap` collects the process. Dropping a Child neither waits nor kills.
    Ok(Pid::from_child(&child))
}

/// Reaps every ended child, including adopted orphans.
pub fn reap() -> Vec<Ended> {
    let mut ended = Vec::new();
    // Wait fails if there is no child. None has ended then.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        ended.extend(exit_code(status).map(|exit_code| Ended { pid, exit_code }));
    }
    ended
}

fn exit_code(status: WaitStatus) -> Option<i32> {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
}

/// Sends a signal to a command's process group, if it still exists.
pub fn signal_group(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// Kills every descendant except `keep` and its children. Returns `true` if there was any.
pub fn kill_descendants(keep: Option<Pid>) -> bool {
    let descendants = descendants(&processes(), std::process::id(), keep.map(|pid| pid.as_raw_nonzero().get()));
    for pid in &descendants {
        if let Some(pid) = Pid::from_raw(*pid) {
            // The next call finds a process that could not be killed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    !descendants.is_empty()
}

/// Returns the PID and parent PID of all processes that have not ended, from /proc. Returns none on systems without
/// /proc.
fn processes() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parent(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// Parses the parent PID from a line of /proc/PID/stat: `PID (NAME) STATE PARENT …`. The name may contain any
/// characters. Returns `None` for a process that has ended.
fn parent(stat: &[u8]) -> Option<i32> {
    let after_name = stat.rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(after_name).ok()?.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

fn descendants(processes: &[(i32, i32)], of: u32, keep: Option<i32>) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents: Vec<i32> = i32::try_from(of).into_iter().collect();
    while let Some(parent) = parents.pop() {
        let children = processes.iter().filter(|(pid, of)| *of == parent && Some(*pid) != keep).map(|(pid, _)| *pid);
        let before = found.len();
        found.extend(children);
        parents.extend(found.iter().skip(before));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_name_may_contain_spaces_and_brackets() {
        assert_eq!(parent(b"17 (a) b) S 4 17 17"), Some(4));
    }

    #[test]
    fn zombie_is_not_killed() {
        assert_eq!(parent(b"17 (sh) Z 4 17 17"), None);
    }

    #[test]
    fn descendants_are_found_through_their_parents() {
        let mut found = descendants(&[(2, 1), (4, 3), (3, 2), (5, 1), (6, 5), (9, 8)], 1, Some(5));
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
    }
}
