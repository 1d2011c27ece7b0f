//! Parsers of the values of flags.

use std::time::Duration;

use ecs_bridge_local::options;

/// Parses a time as `ecs-bridge local` does: a number of seconds, or a number with a unit.
pub fn parse_time(text: &str) -> Result<Duration, &'static str> {
    options::time(text).map(Duration::from_secs_f64)
}

/// Parses the interval between two refreshes, at least 1 second, because every refresh reads the table.
pub fn parse_pause(text: &str) -> Result<Duration, &'static str> {
    parse_time(text).and_then(|time| if time < Duration::from_secs(1) { Err("must be at least 1s") } else { Ok(time) })
}

/// Parses a label.
pub fn label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) =
        text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("must be KEY=VALUE, such as team=data")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_number_with_or_without_unit() {
        assert_eq!(parse_time("15m").unwrap(), Duration::from_secs(900));
        assert_eq!([parse_time("15").unwrap(), parse_time("0").unwrap()], [Duration::from_secs(15), Duration::ZERO]);
        assert_eq!(parse_time("1.5h").unwrap(), Duration::from_secs(5_400));
        assert_eq!(
            (parse_pause("0").is_err(), parse_pause("0.9s").is_err(), parse_pause("1").is_err()),
            (true, true, false)
        );
        for text in ["", "m", "-1h", "1w", "1h30m", "inf", "NaN", "99999999999999999999d", "1é"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
