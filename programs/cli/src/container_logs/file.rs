//! Container output in a file of a local stack.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::line::Line;

/// The number of bytes per line that are read from the end of a file.
const BYTES_PER_LINE: u64 = 1_024;

/// Returns the lines of a file after `position`, and up to the last `max_lines` of them.
pub fn tail(path: &Path, position: &mut u64, max_lines: usize) -> std::io::Result<Vec<Line>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    let from = (*position).max(length.saturating_sub(BYTES_PER_LINE.saturating_mul(max_lines as u64)));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    *position = from + bytes.len() as u64;
    let lines = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = lines.lines().map(|line| Line { at: None, message: line.to_owned() }).collect();
    let skipped = lines.len().saturating_sub(max_lines);
    Ok(lines.into_iter().skip(skipped).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path, position: &mut u64, max_lines: usize) -> Vec<String> {
        tail(path, position, max_lines).unwrap().into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn tail_returns_last_lines_and_then_new_lines() {
        let path = std::env::temp_dir().join(format!("ecs-bridge-tail-{}", uuid::Uuid::new_v4()));
        let mut position = 0;
        assert_eq!(read(&path, &mut position, 2), [""; 0]);
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(read(&path, &mut position, 2), ["two", "three"]);
        assert_eq!(read(&path, &mut position, 2), [""; 0]);
        std::fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(read(&path, &mut position, 2), ["four"]);
        std::fs::remove_file(&path).unwrap();
    }
}
