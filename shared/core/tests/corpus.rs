//! Every input that fuzzing once found worth keeping, parsed again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test; what is allowed in its functions is allowed beside them"
)]

use std::{fs, path::Path};

#[path = "../../../tests/fuzz/checks.rs"]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "an empty corpus");
}

#[test]
fn events() {
    replay("event", checks::event);
}

#[test]
fn requests() {
    replay("request", checks::request);
}

#[test]
fn profiles() {
    replay("profiles", checks::profiles);
}
