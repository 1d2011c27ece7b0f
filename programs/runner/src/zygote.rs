//! The zygote: a process that has imported the code that commands need, and forks for each command.
//!
//! Its stdin is a Unix socket. Each message is a line of JSON. README.md describes the protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::api::{Run, Variable};
use crate::process::{program, signal_group};

/// The version of the protocol.
const VERSION: u32 = 1;
/// The time after which a zygote that does not read its socket counts as hung.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A zygote that was started and has not been reaped.
pub struct Zygote {
    pid: Pid,
    socket: UnixStream,
    /// The first words of the commands that it can run, once it has sent them.
    prefix: Option<Vec<String>>,
    ready: bool,
    reply: Option<Reply>,
    ended: bool,
}

/// Its reply to [`Zygote::fork`].
pub enum Reply {
    /// This process waits for [`Zygote::go`].
    Forked(Pid),
    /// The zygote declined the command, for this reason.
    Declined(String),
}

/// A message from the zygote or from a process that it forked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The first message: the protocol's version, and the first words of the commands that it can run.
    Zygote {
        /// The version, which is 1.
        version: u32,
        /// The first words of those commands.
        prefix: Vec<String>,
    },
    /// The zygote has imported everything.
    Ready {},
    /// A forked process waits for `go`.
    Forked {
        /// The PID of the process.
        pid: i32,
    },
    /// The command would run differently than in its own process, or the fork failed.
    Declined {
        /// The reason.
        reason: String,
    },
}

#[derive(Serialize)]
struct Request<'a> {
    command: &'a [String],
    environment: &'a [Variable],
}

impl Zygote {
    /// Starts a zygote. `report` gets its messages, then `None` when it closes its socket or violates the protocol, and returns
    /// `false` when no more are needed.
    ///
    /// # Errors
    /// If the zygote could not be started.
    pub fn start(words: &[String], report: impl Fn(Option<Message>) -> bool + Send + 'static) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let reader = BufReader::new(ours.try_clone()?);
        let (name, arguments) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        ours.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let child = program(name).args(arguments).stdin(OwnedFd::from(theirs)).spawn()?;
        std::thread::spawn(move || {
            for line in reader.lines() {
                let message = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(message) = message else { break };
                if !report(Some(message)) {
                    return;
                }
            }
            report(None);
        });
        Ok(Self { pid: Pid::from_child(&child), socket: ours, prefix: None, ready: false, reply: None, ended: false })
    }

    /// Returns its PID.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Handles a message.
    ///
    /// # Errors
    /// If the message violates the protocol.
    pub fn handle(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Zygote { version: VERSION, prefix } => self.prefix = Some(prefix),
            Message::Zygote { version, .. } => {
                return Err(format!(
                    "its protocol version is {version}, and this program supports {VERSION}: install the same version of both packages"
                ));
            }
            Message::Ready {} => self.ready = true,
            Message::Forked { pid } => {
                let pid = Pid::from_raw(pid).filter(|pid| !pid.is_init());
                self.reply = Some(Reply::Forked(pid.ok_or("it sent an invalid PID")?));
            }
            Message::Declined { reason } => self.reply = Some(Reply::Declined(reason)),
        }
        Ok(())
    }

    /// Returns `true` if it can run this command, or `None` until it has sent the commands that it can run.
    pub fn can_run(&self, run: &Run) -> Option<bool> {
        self.prefix.as_ref().map(|prefix| run.command.starts_with(prefix))
    }

    /// Returns `true` if it has imported everything.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Requests a fork for a command. The process waits for [`Zygote::go`].
    ///
    /// # Errors
    /// If the socket fails. No process reads it any more then.
    pub fn fork(&mut self, run: &Run) -> std::io::Result<()> {
        let request = Request { command: &run.command, environment: &run.environment };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.reply = None;
        self.socket.write_all(&line)
    }

    /// Takes its reply to the last [`Zygote::fork`].
    pub fn take_reply(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    /// Records that it was reaped, because the kernel may reuse its PID.
    pub fn has_ended(&mut self) {
        self.ended = true;
    }

    /// Starts the command in the forked process. Without it, the process exits.
    ///
    /// # Errors
    /// If the socket fails. No process reads it any more then.
    pub fn go(&mut self) -> std::io::Result<()> {
        self.socket.write_all(b"go\n")
    }
}

impl Drop for Zygote {
    /// Closes the socket. A waiting forked process detects this and exits without starting its command.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if !self.ended {
            signal_group(self.pid, Signal::KILL);
        }
    }
}
