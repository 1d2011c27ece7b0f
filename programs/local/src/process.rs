//! Ends processes: whole groups, and through a watchdog those that remain after this program was killed.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// An environment variable of all processes that a local stack starts, by which the watchdog finds them.
pub const RUN_VARIABLE: &str = "ECS_BRIDGE_LOCAL_RUN";

/// Kills a process group with SIGKILL. Returns false if there is none.
pub fn kill_group(leader: u32) -> bool {
    signal_group(leader, Signal::SIGKILL)
}

/// Sends SIGTERM to a process group. Returns false if there is none.
pub fn terminate_group(leader: u32) -> bool {
    signal_group(leader, Signal::SIGTERM)
}

fn signal_group(leader: u32, signal: Signal) -> bool {
    // Group 0 is that of this program.
    i32::try_from(leader).is_ok_and(|leader| leader > 1 && killpg(Pid::from_raw(leader), signal).is_ok())
}

/// Returns true if a child of this program has ended. It does not reap the child.
pub fn has_ended(child: u32) -> bool {
    let Ok(child) = i32::try_from(child) else { return true };
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(Pid::from_raw(child)), flags), Ok(WaitStatus::StillAlive))
}

/// Starts the watchdog: `program` with these arguments calls [`watch`] with the name of the run. It ends the processes of
/// the run when the standard input of the returned child closes, as it does when this program is killed.
///
/// # Errors
/// If it cannot be started.
pub fn start_watchdog(program: &Path, arguments: &[&str]) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C on the terminal must not end the watchdog.
        .process_group(0)
        .spawn()
}

/// Runs the watchdog: waits for the end of standard input, then kills every process of that run, with its group.
pub fn watch(run: &str) {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let marker = format!("{RUN_VARIABLE}={run}");
    // A process may have started others in the meantime. Repeat until a scan finds none.
    while kill_marked(&marker) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills every process with this variable, `NAME=value`, in its environment, and the process's group. Returns true if there
/// was one.
pub fn kill_marked(marker: &str) -> bool {
    let me = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut found = false;
    for pid in pids.filter(|pid| *pid != me) {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
        if !environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()) {
            continue;
        }
        let Ok(raw) = i32::try_from(pid) else { continue };
        let group = nix::unistd::getpgid(Some(Pid::from_raw(raw)));
        if let Ok(group) = group
            && group != nix::unistd::getpgrp()
        {
            let _ = killpg(group, Signal::SIGKILL);
        }
        found |= nix::sys::signal::kill(Pid::from_raw(raw), Signal::SIGKILL) != Err(Errno::ESRCH);
    }
    found
}

/// Raises the limit on open files to the hard limit, because each running container needs a file.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
