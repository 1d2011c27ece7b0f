//! Ids on the command line: complete ids, or unambiguous prefixes.

use std::collections::HashSet;

use crate::client::connection::Client;
use crate::error::CommandError;
use crate::record::{Record, text};

/// The shortest prefix that is looked up.
const SHORTEST: usize = 4;

/// The limit of the API on the length of an id.
const LONGEST: usize = 60;

/// A complete id.
#[derive(Clone, Debug)]
pub struct Known {
    /// The id.
    pub id: String,
    /// `true` if the submission exists.
    pub exists: bool,
}

/// Completes ids. An id that matches no submission is returned unchanged.
pub async fn resolve(client: &Client, ids: &[String], accept_prefixes: bool) -> Result<Vec<Known>, CommandError> {
    let mut found = HashSet::new();
    if client.has_table() && ids.len() > 1 {
        found.extend(client.records(ids).await?.iter().map(|record| text(record, "submission_id")));
    }
    let mut known = Vec::new();
    for id in ids {
        if found.contains(id) || record(client, id).await?.is_some() {
            known.push(Known { id: id.clone(), exists: true });
            continue;
        }
        let completed = if accept_prefixes { complete(client, id).await? } else { None };
        known.push(match completed {
            Some(id) => Known { id, exists: true },
            None => Known { id: id.clone(), exists: false },
        });
    }
    Ok(known)
}

/// Returns the id and the record of the submission that `id`, or an unambiguous beginning of its id, names.
pub async fn find(client: &Client, id: &str) -> Result<(String, Record), CommandError> {
    if let Some(found) = record(client, id).await? {
        return Ok((id.to_owned(), found));
    }
    let id = complete(client, id).await?.ok_or_else(|| CommandError::NotFound(id.to_owned()))?;
    let found = client.record(&id).await?;
    Ok((id, found))
}

/// Returns the record of exactly this id, if there is one.
async fn record(client: &Client, id: &str) -> Result<Option<Record>, CommandError> {
    let is_valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !(1..=LONGEST).contains(&id.len()) || !id.chars().all(is_valid) {
        return Err(CommandError::InvalidId(id.to_owned()));
    }
    match client.record(id).await {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the only id with the prefix `start`, if there is one.
async fn complete(client: &Client, start: &str) -> Result<Option<String>, CommandError> {
    if !client.has_table() || start.len() < SHORTEST {
        return Ok(None);
    }
    let mut matches = client.ids_with_prefix(start).await?;
    if matches.len() > 1 {
        matches.truncate(5);
        return Err(CommandError::Ambiguous { given: start.to_owned(), matches });
    }
    Ok(matches.pop())
}

/// Returns the shortest unambiguous prefixes of these ids, of at least 8 characters. Short ids stay whole.
pub fn shorten(ids: &[String]) -> Vec<String> {
    const WHOLE: usize = 14;
    const LEAST: usize = 8;
    let mut sorted: Vec<_> = ids.iter().map(|id| id.chars().collect::<Vec<_>>()).collect();
    sorted.sort();
    let shared = |a: &[char], b: &[char]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let short = |id: &String| {
        let letters: Vec<_> = id.chars().collect();
        if letters.len() <= WHOLE {
            return id.clone();
        }
        let at = sorted.partition_point(|other| *other < letters);
        let neighbors = [at.checked_sub(1).and_then(|at| sorted.get(at)), sorted.get(at + 1)];
        let needed = neighbors.into_iter().flatten().map(|other| shared(other, &letters) + 1).max().unwrap_or(0);
        letters.into_iter().take(needed.max(LEAST)).collect()
    };
    ids.iter().map(short).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_unambiguous_among_themselves() {
        let ids = ["nightly-1", "0b6b1f5c-aaaa-0000", "0b6b1f5c-aaab-0000", "ffffffff-0000-0000"].map(str::to_owned);
        assert_eq!(shorten(&ids), ["nightly-1", "0b6b1f5c-aaaa", "0b6b1f5c-aaab", "ffffffff"]);
    }
}
