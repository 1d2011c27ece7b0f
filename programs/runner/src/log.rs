//! Messages on stderr.

/// Prints a message to stderr. Errors are ignored because a closed stderr must not end the runner.
macro_rules! log {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "ecs-bridge-runner: {}", format_args!($($argument)*));
    }};
}

pub(crate) use log;
