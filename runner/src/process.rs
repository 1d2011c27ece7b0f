//! Processes: starting a command, collecting what ended, and killing what a command left behind.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};

use crate::api::Run;
use crate::config::OWN_VARIABLES;

/// A shell's exit code for a program that was not found.
const NOT_FOUND: i32 = 127;
/// A shell's exit code for a program that was found and cannot be run.
const NOT_RUNNABLE: i32 = 126;

/// A process that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Which.
    pub pid: Pid,
    /// As a shell reports it.
    pub exit_code: i32,
}

/// Why a command could not be started, as a shell reports it.
#[derive(Debug)]
pub struct NotStarted {
    /// 126 or 127.
    pub exit_code: i32,
    /// For people.
    pub message: String,
}

/// Becomes the parent of every orphan among its descendants, as PID 1 is without asking; and keeps its own environment,
/// which holds the runner's token, from being read through /proc by commands of the same user.
///
/// # Errors
/// The kernel's.
#[cfg(target_os = "linux")]
pub fn adopt_orphans() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Any PID means "on".
    set_child_subreaper(Some(getpid()))?;
    Ok(())
}

/// Other systems have no subreapers.
#[cfg(not(target_os = "linux"))]
pub fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// A program in a process group of its own, with the container's environment but for this program's variables.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.process_group(0);
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
    command
}

/// Starts a command, with stdin from /dev/null and the output of this process.
///
/// # Errors
/// Why it could not be started.
pub fn spawn(run: &Run) -> Result<Pid, NotStarted> {
    let Some((name, arguments)) = run.command.split_first() else {
        return Err(NotStarted { exit_code: NOT_FOUND, message: "the command is empty".into() });
    };
    let mut command = program(name);
    command.args(arguments).stdin(Stdio::null());
    command.envs(run.environment.iter().map(|variable| (&variable.name, &variable.value)));
    let child = command.spawn().map_err(|error| NotStarted {
        exit_code: if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE },
        // Without its arguments, which may hold secrets.
        message: format!("{name}: {error}"),
    })?;
    // `reap` collects it: dropping a Child neither waits nor kills.
    Ok(Pid::from_child(&child))
}

/// Collects every child that has ended, adopted orphans too.
pub fn reap() -> Vec<Ended> {
    let mut ended = Vec::new();
    // Without any child, wait fails: then none has ended.
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

/// Kills every descendant but `keep` and its children, and returns whether there was any.
pub fn kill_descendants(keep: Option<Pid>) -> bool {
    let descendants = descendants(&processes(), std::process::id(), keep.map(|pid| pid.as_raw_nonzero().get()));
    for pid in &descendants {
        if let Some(pid) = Pid::from_raw(*pid) {
            // One that cannot be killed is found again by the next call.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    !descendants.is_empty()
}

/// The PID and parent's PID of all processes that have not ended, from /proc; none where there is no /proc.
fn processes() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parent(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// The parent in a line of /proc/PID/stat: `PID (NAME) STATE PARENT …`, where the name may hold anything. `None` for a
/// process that has ended.
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
    fn a_process_name_may_hold_spaces_and_brackets() {
        assert_eq!(parent(b"17 (a) b) S 4 17 17"), Some(4));
    }

    #[test]
    fn a_zombie_is_no_process_to_kill() {
        assert_eq!(parent(b"17 (sh) Z 4 17 17"), None);
    }

    #[test]
    fn descendants_are_found_through_their_parents() {
        let mut found = descendants(&[(2, 1), (4, 3), (3, 2), (5, 1), (6, 5), (9, 8)], 1, Some(5));
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4]);
    }
}
