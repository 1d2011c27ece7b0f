//! The files of a run: the ready file, the mark of a start, and the logs.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::LocalError;
use crate::options::Options;

/// Returns the ready file of a local stack that was started without `--ready-file`; none without a home directory.
#[must_use]
pub fn default_ready_file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("ecs-bridge/local.json"))
}

/// Returns whether a local stack is starting that will write this ready file.
#[must_use]
pub fn is_starting(ready_file: &Path) -> bool {
    let pid = std::fs::read_to_string(with_suffix(ready_file, ".starting")).ok();
    let pid = pid.and_then(|pid| pid.trim().parse().ok()).filter(|pid: &i32| *pid > 1);
    // Signal 0 checks only that the process exists.
    pid.is_some_and(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok())
}

/// Returns the path with this suffix added to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The files of a run. Dropping them removes them.
pub(super) struct Files {
    pub(super) ready: Option<PathBuf>,
    pub(super) logs: Option<PathBuf>,
}

impl Files {
    /// Fills in the default paths, and writes the mark of a start next to the ready file.
    pub(super) fn of(options: &Options, run: &str) -> Result<(Options, Self), LocalError> {
        let mut options = options.clone();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LocalError::File { path, source }
        };
        let mut files = Self { ready: None, logs: None };
        if options.ready_file.is_none() {
            // A read-only home directory, as in some containers, must not prevent the start.
            options.ready_file = default_ready_file()
                .filter(|path| path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()));
        }
        if let Some(path) = &options.ready_file {
            // The file of an earlier run that was killed names addresses at which no process listens.
            let _ = std::fs::remove_file(path);
            let mark = with_suffix(path, ".starting");
            std::fs::write(&mark, std::process::id().to_string()).map_err(failed(&mark))?;
            files.ready = Some(path.clone());
        }
        if options.log_dir.is_none() {
            let folder = std::env::temp_dir().join(format!("ecs-bridge-local-{run}"));
            DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
            files.logs = Some(folder.clone());
            options.log_dir = Some(folder);
        }
        Ok((options, files))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(path) = &self.ready {
            let mark = with_suffix(path, ".starting");
            let own = std::process::id();
            // Another run may have replaced them.
            if std::fs::read_to_string(&mark).is_ok_and(|pid| pid == own.to_string()) {
                let _ = std::fs::remove_file(&mark);
            }
            let ready =
                std::fs::read(path).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
            if ready.is_some_and(|ready| ready.get("pid") == Some(&own.into())) {
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(folder) = &self.logs {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, LocalError> {
    std::fs::read_to_string(path).map_err(|source| LocalError::File { path: path.to_owned(), source })
}

/// Writes the file atomically, so that a process that waits for it reads all of it.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<(), LocalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = PathBuf::from(name);
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|source| LocalError::File { path: path.to_owned(), source })
}
