//! The zygote: a process that has imported what commands need, and forks for each of them.
//!
//! Its stdin is a Unix socket. Each message is a line of JSON; README.md has the protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::Event;
use crate::api::{Run, Variable};
use crate::process::{program, signal_group};

/// The version of the protocol.
const VERSION: u32 = 1;
/// A zygote that reads nothing for this long hangs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A zygote that was started and has not been seen to end.
pub struct Zygote {
    pid: Pid,
    socket: UnixStream,
    /// What the commands begin with that it can run, once it has sent that.
    prefix: Option<Vec<String>>,
    ready: bool,
    reply: Option<Reply>,
    ended: bool,
}

/// Its reply to [`Zygote::fork`].
pub enum Reply {
    /// This process waits for [`Zygote::go`].
    Forked(Pid),
    /// Why the command is not for it.
    Declined(String),
}

/// A message of the zygote or of a process that it forked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The first: the protocol's version, and what the commands that it can run begin with.
    Zygote {
        /// 1.
        version: u32,
        /// Words of the command.
        prefix: Vec<String>,
    },
    /// It has imported everything.
    Ready {},
    /// A forked process waits for `go`.
    Forked {
        /// Its PID.
        pid: i32,
    },
    /// This command would run differently than in a process of its own, or there was no forking.
    Declined {
        /// Why.
        reason: String,
    },
}

#[derive(Serialize)]
struct Request<'a> {
    command: &'a [String],
    environment: &'a [Variable],
}

impl Zygote {
    /// Starts a zygote. Its messages arrive in `events`.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn start(words: &[String], events: Sender<Event>) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let reader = BufReader::new(ours.try_clone()?);
        let (name, arguments) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        ours.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let child = program(name).args(arguments).stdin(OwnedFd::from(theirs)).spawn()?;
        std::thread::spawn(move || {
            for line in reader.lines() {
                let message = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(message) = message else { break };
                if events.send(Event::Zygote(message)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::ZygoteClosed);
        });
        Ok(Self { pid: Pid::from_child(&child), socket: ours, prefix: None, ready: false, reply: None, ended: false })
    }

    /// Its PID.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Records a message.
    ///
    /// # Errors
    /// That it does not keep to the protocol.
    pub fn handle(&mut self, message: Message) -> Result<(), String> {
        match message {
            Message::Zygote { version: VERSION, prefix } => self.prefix = Some(prefix),
            Message::Zygote { version, .. } => {
                return Err(format!("it speaks version {version} of the protocol, this program speaks {VERSION}"));
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

    /// Whether it can run this command; `None` until it has sent what it can run.
    pub fn can_run(&self, run: &Run) -> Option<bool> {
        self.prefix.as_ref().map(|prefix| run.command.starts_with(prefix))
    }

    /// Whether it has imported everything.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Asks it to fork for a command. The process waits for [`Zygote::go`].
    ///
    /// # Errors
    /// The socket's: no process reads it any more.
    pub fn fork(&mut self, run: &Run) -> std::io::Result<()> {
        let request = Request { command: &run.command, environment: &run.environment };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        self.reply = None;
        self.socket.write_all(&line)
    }

    /// Its reply to the last [`Zygote::fork`], once.
    pub fn take_reply(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    /// Records that it was reaped: its PID may be another process's.
    pub fn has_ended(&mut self) {
        self.ended = true;
    }

    /// Lets the forked process start its command. Without it, it ends.
    ///
    /// # Errors
    /// The socket's: no process reads it any more.
    pub fn go(&mut self) -> std::io::Result<()> {
        self.socket.write_all(b"go\n")
    }
}

impl Drop for Zygote {
    /// A forked process that still waits sees the socket closed, and ends without a start.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if !self.ended {
            signal_group(self.pid, Signal::KILL);
        }
    }
}
