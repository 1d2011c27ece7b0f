//! Output on the terminal: errors on one line, tables, times.

use std::error::Error;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_types::error::ErrorMetadata;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes the error and its causes on one line to standard error.
pub fn report(error: &dyn Error) {
    eprintln!("ecs-bridge: {}", with_causes(error));
}

/// Returns the error and its causes on one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // The SDK displays what it does not model in the notation of a Rust value.
        let text = match error.downcast_ref::<ErrorMetadata>() {
            Some(error) => [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": "),
            None => error.to_string(),
        };
        if text.starts_with("unhandled error") && error.source().is_some() {
            cause = error.source();
            continue;
        }
        // Some errors repeat their cause.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    if line.contains("Connection refused") && LOOPBACK.iter().any(|address| line.contains(address)) {
        line.push_str("; is `ecs-bridge local` running?");
    }
    if is_about_the_clock(&line) {
        line.push_str("; the clock of this machine is wrong: set it, for example through NTP");
    }
    line
}

/// The addresses at which a local stack may listen.
const LOOPBACK: [&str; 3] = ["http://127.0.0.1", "http://localhost", "http://[::1]"];

/// Returns `true` if AWS rejected a signature because the clock is more than five minutes off. An
/// InvalidSignatureException alone may have another cause, such as a wrong key.
fn is_about_the_clock(words: &str) -> bool {
    const CLOCK: [&str; 4] = [
        "signature expired",
        "signature not yet current",
        "requesttimetooskewed",
        "request time and the current time is too large",
    ];
    let words = words.to_ascii_lowercase();
    CLOCK.iter().any(|known| words.contains(known))
}

/// Returns the time of this machine, in epoch milliseconds.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Writes a line to standard output. A closed pipe, as with `ecs-bridge ps | head`, is not an error.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Epoch milliseconds in ISO 8601.
pub fn iso(millis: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| millis.to_string())
}

/// `0.4s`, `12s`, `5m03s`, `2h07m`, `3d04h`
pub fn duration(millis: i64) -> String {
    let seconds = millis.max(0) / 1_000;
    match seconds {
        0..10 => format!("{}.{}s", seconds, millis.max(0) % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Returns `true` if standard output shows colors: <https://no-color.org>.
pub fn has_colors() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns a cell in the color of its state or verdict.
pub fn paint(cell: &str) -> String {
    let color = match cell.trim() {
        "succeeded" | "ok" => 32,
        "failed" | "rejected" | "lost" | "FAIL" => 31,
        "expired" | "cancelled" | "skipped" | "unknown" => 33,
        "running" | "launched" => 36,
        _ => return cell.to_owned(),
    };
    format!("\x1b[{color}m{cell}\x1b[0m")
}

/// Cuts the text to up to `most` characters.
pub fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Returns rows under their headings, in aligned columns.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    colored_table(headings, rows, false)
}

/// Returns the same table, with states in color if `colors` is set.
pub fn colored_table<const N: usize>(headings: [&str; N], rows: &[[String; N]], colors: bool) -> String {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| {
            let padded = format!("{cell:<width$}");
            if colors { paint(&padded) } else { padded }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(headings)).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_shows_up_to_two_units() {
        for (millis, text) in [
            (-5, "0.0s"),
            (430, "0.4s"),
            (12_900, "12s"),
            (303_000, "5m03s"),
            (7_620_000, "2h07m"),
            (273_600_000, "3d04h"),
        ] {
            assert_eq!(duration(millis), text);
        }
    }

    #[test]
    fn clock_error_names_the_clock() {
        for (words, is_clock) in [
            ("Signature expired: 20261130T095000Z is now earlier than 20261130T100000Z (403, no code)", true),
            ("Signature not yet current: 20261130T101500Z is still later than 20261130T100500Z", true),
            ("RequestTimeTooSkewed: The difference between the request time and the current time is too large.", true),
            ("InvalidSignatureException: Signature expired: 20261130T095000Z is now earlier", true),
            ("InvalidSignatureException: The request signature we calculated does not match the signature", false),
            ("Forbidden (403, no code)", false),
        ] {
            assert_eq!(
                with_causes(&std::io::Error::other(words)).contains("clock of this machine"),
                is_clock,
                "{words}"
            );
        }
    }

    #[test]
    fn table_columns_are_aligned() {
        let rows = [["a".to_owned(), "succeeded".to_owned()], ["long-id".to_owned(), "-".to_owned()]];
        assert_eq!(table(["ID", "STATE"], &rows), "ID       STATE\na        succeeded\nlong-id  -\n");
    }
}
