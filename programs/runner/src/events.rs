//! The events that wake a runner: signals, messages of the zygote, and doorbell messages.

use std::sync::mpsc::Sender;

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::doorbell::Received;
use crate::log::log;
use crate::zygote::Message;

/// The events that wake a runner.
pub enum Event {
    /// A signal to pass on.
    Signal {
        /// The signal.
        signal: Signal,
        /// `true` if it also stops the runner.
        stops: bool,
    },
    /// At least one child has ended.
    ChildEnded,
    /// A message from the zygote or from a process that it forked.
    Zygote(Message),
    /// The zygote has closed its socket, or broken the protocol.
    ZygoteClosed,
    /// A wait for the doorbell has ended.
    Doorbell(Received),
}

/// Sends an event for each signal.
///
/// # Errors
/// If the signals cannot be handled.
pub fn watch_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // ECS sends SIGTERM, but an image may set another signal with STOPSIGNAL.
            let stops = matches!(signal, SIGTERM | SIGINT | SIGQUIT);
            let event = match Signal::from_named_raw(signal) {
                Some(Signal::CHILD) => Event::ChildEnded,
                Some(signal) => Event::Signal { signal, stops },
                None => continue,
            };
            if events.send(event).is_err() {
                break;
            }
            if stops {
                log!("stopping: received signal {signal}");
            }
        }
    });
    Ok(())
}
