//! The lifecycle of a command: its start, output and exit, and the processes that it leaves behind.
#![allow(missing_docs)]

mod support;

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::json;
use support::{Api, Runner, configure, exists, program, start, until};

#[test]
fn exit_code_is_reported_before_next_command() {
    let api = Api::new();
    let mut runner = start(&api);
    let first = api.request();
    assert_eq!(first.path, "/v1/poll");
    assert_eq!(first.body["runner_id"], "runner-1");
    assert_eq!(first.body["token"], "the-token");
    assert!(first.body.get("done").is_none() && first.body.get("stopping").is_none());
    let incarnation = first.body["incarnation"].clone();
    first.run("s-1", &["sh", "-c", "exit 3"]);
    let done = api.request();
    assert_eq!(done.body["done"], json!({"submission_id": "s-1", "exit_code": 3}));
    assert_eq!(done.body["incarnation"], incarnation);
    done.run("s-2", &["true"]);
    let done = api.request();
    assert_eq!(done.body["done"], json!({"submission_id": "s-2", "exit_code": 0}));
    done.wait();
    let idle = api.request();
    assert!(idle.body.get("done").is_none());
    idle.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn signal_death_is_reported_as_by_shell() {
    let api = Api::new();
    let _runner = start(&api);
    assert_eq!(api.run(&["sh", "-c", "kill -SEGV $$"]).exit_code(), 128 + 11);
}

#[test]
fn missing_program_exits_with_127_without_arguments() {
    let api = Api::new();
    let mut runner = start(&api);
    let done = api.run(&["no-such-program", "--password=hush"]);
    assert_eq!(done.exit_code(), 127);
    done.close();
    runner.ended();
    assert!(runner.printed().contains("s-1 cannot be started: no-such-program"));
    assert!(!runner.printed().contains("hush"));
}

#[test]
fn unexecutable_file_exits_with_126() {
    let api = Api::new();
    let _runner = start(&api);
    assert_eq!(api.run(&["/"]).exit_code(), 126);
}

#[test]
fn submission_environment_overrides_the_container() {
    let api = Api::new();
    let mut runner = Runner::start(program(&api).env("KEPT", "of the container").env("BOTH", "of the container"));
    let environment = json!([{"name": "BOTH", "value": "of the submission"}]);
    let script = "env | grep -e KEPT -e BOTH -e ECS_BRIDGE | sort; echo end";
    let command = json!({"submission_id": "s-1", "command": ["sh", "-c", script], "environment": environment});
    api.request().answer(200, &json!({"run": command}));
    api.request().close();
    let lines: Vec<_> = (0..3).map(|_| runner.line()).collect();
    assert_eq!(lines, ["BOTH=of the submission", "KEPT=of the container", "end"]);
}

#[test]
fn command_cannot_read_runner_token() {
    let api = Api::new();
    // Containers do not have the capabilities that would allow this unless they are granted.
    let mut unprivileged = Command::new("setpriv");
    configure(&mut unprivileged, &api);
    if rustix::process::geteuid().is_root() {
        unprivileged.args(["--bounding-set=-all", "--inh-caps=-all"]);
    }
    let mut runner = Runner::start(unprivileged.arg(env!("CARGO_BIN_EXE_ecs-bridge-runner")));
    api.run(&["sh", "-c", "cat /proc/$$/environ | tr '\\0' '\\n' | grep ^PATH=; cat /proc/$PPID/environ"]).close();
    assert!(runner.line().starts_with("PATH="));
    assert_eq!(runner.line(), "");
    runner.until_printed("Permission denied");
}

#[test]
fn command_output_is_unchanged() {
    let api = Api::new();
    let mut runner = start(&api);
    api.run(&["printf", r"\000\377\r\nno end of line"]).close();
    let mut output = Vec::new();
    runner.output.read_to_end(&mut output).unwrap();
    assert_eq!(output, b"\x00\xff\r\nno end of line");
}

#[test]
fn command_inherits_no_stdin_or_descriptors() {
    let api = Api::new();
    let mut runner = start(&api);
    let script = "cat; ls /proc/self/fd | wc -l";
    // Descriptors that this process has inherited, such as cargo's jobserver, are passed to every process.
    let direct = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    api.run(&["sh", "-c", script]).close();
    assert_eq!(runner.line(), String::from_utf8(direct.stdout).unwrap().trim());
}

#[test]
fn command_leads_its_own_process_group() {
    let api = Api::new();
    let mut runner = start(&api);
    api.run(&["sh", "-c", "ps -o pid= -o pgid= -p $$"]).close();
    let line = runner.line();
    let mut ids = line.split_whitespace();
    assert_eq!(ids.next(), ids.next());
}

#[test]
fn leftover_processes_die_before_completion_is_reported() {
    let api = Api::new();
    let mut runner = start(&api);
    // One process is in the group, one is in its own session, and one child of the latter ignores SIGTERM.
    let script = "sleep 1000 & echo $!; setsid sh -c 'trap \"\" TERM; sleep 1000 & echo $!; echo $$; wait' &
        while [ $(pgrep -c -P $! sleep) = 0 ]; do :; done";
    let done = api.run(&["sh", "-c", script]);
    let left: Vec<_> = (0..3).map(|_| runner.line()).collect();
    assert!(left.iter().all(|pid| !pid.is_empty() && !exists(pid)), "{left:?}");
    done.close();
}

#[test]
fn orphans_are_reaped_while_command_runs() {
    let api = Api::new();
    let mut runner = start(&api);
    api.request().run("s-1", &["sh", "-c", "(sh -c 'echo $$' &); exec sleep 1000"]);
    let orphan = runner.line();
    assert!(!orphan.is_empty());
    until(|| !exists(&orphan));
    runner.signal("TERM");
    assert_eq!(api.request().exit_code(), 128 + 15);
}

#[test]
fn orphans_are_reaped_while_idle() {
    let api = Api::new();
    let mut runner = start(&api);
    // The leftover shell is killed, and its child thereby becomes an orphan.
    api.run(&["sh", "-c", "setsid sh -c 'sleep 1000 & echo $!; wait' & read x < /dev/null; exit 0"]).wait();
    let idle = api.request();
    let children = format!("/proc/{0}/task/{0}/children", runner.process.id());
    until(|| std::fs::read_to_string(&children).unwrap().is_empty());
    idle.close();
    assert_eq!(runner.exit_code(), Some(0));
}

#[test]
fn pid_1_reaps_orphans_and_stops_on_sigterm() {
    let api = Api::new();
    let mut unshare = Command::new("unshare");
    configure(&mut unshare, &api);
    unshare.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.arg(env!("CARGO_BIN_EXE_ecs-bridge-runner"));
    let mut runner = Runner::start(&mut unshare);
    let script = "trap 'exit 7' TERM; (sh -c 'exit 0' &); while ps -A -o stat= | grep -q Z; do :; done
        echo ppid $PPID; while :; do sleep 1; done";
    api.request().run("s-1", &["sh", "-c", script]);
    assert_eq!(runner.line(), "ppid 1");
    // Seen from outside, PID 1 is the only child of unshare.
    let pid = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", runner.process.id())).unwrap();
    assert!(Command::new("kill").args(["-s", "TERM", pid.trim()]).status().unwrap().success());
    let done = api.request();
    assert_eq!(done.exit_code(), 7);
    assert_eq!(done.body["stopping"], true);
    done.close();
    assert_eq!(runner.exit_code(), Some(0));
}
