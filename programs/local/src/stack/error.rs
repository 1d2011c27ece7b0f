//! Errors of the start of a stack.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::dynamodb::DynamoDbError;
use crate::ecs::DefinitionError;
use crate::lambda::StartError;
use crate::options::Options;
use crate::template::TemplateError;

/// The cause of a failed start.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A file cannot be read or written.
    #[error("\"{}\": {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A port is not available.
    #[error("cannot listen on port {port}: pass another --port-base, or omit it to use free ports")]
    Port {
        /// 0 for any.
        port: u16,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file of the profiles is not valid.
    #[error("profiles file \"{}\": {cause}", path.display())]
    Profiles {
        /// Its path.
        path: PathBuf,
        /// The cause, with the line if the file is not JSON.
        cause: String,
    },
    /// A function's binary is missing.
    #[error("function binary not found: \"{}\": build it, or pass --functions-dir", .0.display())]
    NoFunction(PathBuf),
    /// The template is not valid.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template has no such function.
    #[error("invalid template: no function has the Metadata.BuildProperties.Binary \"{0}\"")]
    NotInTemplate(&'static str),
    /// The task definitions are not valid.
    #[error("invalid task definitions file \"{}\"", path.display())]
    Definitions {
        /// Their path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: DefinitionError,
    },
    /// DynamoDB did not start.
    #[error(transparent)]
    DynamoDb(#[from] DynamoDbError),
    /// A function did not start.
    #[error(transparent)]
    Lambda(#[from] StartError),
    /// The operating system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Replaces the failed start of a function with the cause that the function logged. Names the log file only if it is
/// `kept`.
pub(super) fn explain(error: LocalError, options: &Options, kept: bool) -> LocalError {
    // The text that the functions log if their environment is invalid.
    const INVALID: &str = "Error: the function's environment is not valid: ";
    const OF_PROFILES: &str = "profiles: ";
    let (LocalError::Lambda(StartError::Init { function, cause }), Some(folder)) = (&error, &options.log_dir) else {
        return error;
    };
    let logs = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs = logs.filter(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(function)));
    let problems = logs.find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().rev().find_map(|line| line.strip_prefix(INVALID)).map(str::to_owned)
    });
    let log = folder.join(format!("{function}-*.log")).display().to_string();
    match (problems, &options.profiles) {
        (Some(problems), Some(path)) if problems.starts_with(OF_PROFILES) => {
            LocalError::Profiles { path: path.clone(), cause: problems.replace(OF_PROFILES, "") }
        }
        (None, _) if kept => error,
        (problems, _) => {
            let cause = match problems {
                Some(problems) if kept => format!("{problems}; see {log}"),
                Some(problems) => problems,
                None => cause.replace(&format!("; see {log}"), "; pass --log-dir DIR to keep its log"),
            };
            LocalError::Lambda(StartError::Init { function: function.clone(), cause })
        }
    }
}
