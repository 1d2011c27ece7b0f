//! Replays the history of a run: `ecs-bridge-replay [--earlier-version] HISTORY LOG...`
//!
//! HISTORY contains every version of every record as JSON Lines, in the item format of DynamoDB. The logs are the JSON logs
//! of the functions at level `DEBUG`. The program reads the same environment variables as the functions. With
//! `--earlier-version`, functions of an earlier version took part in the run. They log no decisions, so their writes are
//! checked only against the guarantees. The exit code is 0 if the run is correct, 1 if a write is wrong, and 2 if an
//! argument or a file is invalid.

use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader},
    process::ExitCode,
};

use ecs_bridge_core::{Record, SubmissionId, Timestamp, config::Environment};
use ecs_bridge_model::replay::{Decided, History, Report};
use serde::Deserialize;

/// The maximum number of problems that are printed.
const SHOWN: usize = 20;

#[derive(Deserialize)]
struct Line {
    fields: Fields,
}

#[derive(Deserialize)]
struct Fields {
    submission_id: SubmissionId,
    rev: u64,
    now: Timestamp,
    input: String,
}

fn main() -> ExitCode {
    let (flags, files): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let earlier_version = flags == ["--earlier-version"];
    if files.is_empty() || (!flags.is_empty() && !earlier_version) {
        eprintln!("usage: ecs-bridge-replay [--earlier-version] HISTORY LOG...");
        return ExitCode::from(2);
    }
    match replay(&files) {
        Ok(Report { submissions, created, replayed, unexplained, problems }) => {
            println!(
                "{submissions} submissions: {created} writes created a record, {replayed} are decisions replayed, {} others",
                unexplained.len()
            );
            let unexplained = if earlier_version { Vec::new() } else { unexplained };
            let wrong = problems.len() + unexplained.len();
            problems.iter().chain(&unexplained).take(SHOWN).for_each(|problem| println!("{problem}"));
            if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn replay(files: &[String]) -> Result<Report, Box<dyn Error>> {
    let mut environment = Environment::new(|name: &str| std::env::var(name).ok());
    let config = environment.config();
    let rules = environment.finish(config)?.rules;
    let mut history = History::default();
    for (file, number) in files.iter().zip(0..) {
        for line in lines(file)? {
            let line = line?;
            if number == 0 {
                let item: serde_dynamo::Item = serde_json::from_str(&line)?;
                history.wrote(serde_dynamo::from_item::<_, Record>(item)?);
            } else if line.contains(r#""message":"decided""#)
                // A killed function can leave its last line incomplete. It has not made that write.
                && let Ok(Line { fields }) = serde_json::from_str::<Line>(&line)
            {
                let Fields { submission_id, rev, now, input } = fields;
                history.decided(submission_id, Decided { rev, now, input: serde_json::from_str(&input)? });
            }
        }
    }
    Ok(history.check(&rules))
}

fn lines(file: &str) -> io::Result<impl Iterator<Item = io::Result<String>>> {
    let opened = File::open(file).map_err(|error| io::Error::new(error.kind(), format!("{file}: {error}")))?;
    Ok(BufReader::new(opened).lines())
}
