//! The public shape of a record: the list for readers in other languages, and what openapi.yaml describes.
//! `ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core --test shown` writes the list.

use std::{collections::BTreeSet, env, fs, path::Path};

use ecs_bridge_core::shown::{ATTRIBUTES, Attribute, Reader};
use serde_json::Value;

/// The list, and the copy that is part of the package of the UI plugin.
const LISTS: [&str; 2] =
    ["shared/schema/attributes.json", "python/airflow_ecs_bridge/src/airflow_ecs_bridge/ui/attributes.json"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn list_for_other_languages_is_current() {
    let lines: Vec<_> = ATTRIBUTES.iter().map(|attribute| serde_json::to_string(attribute).unwrap()).collect();
    let text = format!("[\n  {}\n]\n", lines.join(",\n  "));
    for list in LISTS {
        let path = root().join(list);
        if env::var_os("ECS_BRIDGE_WRITE").is_some() {
            fs::write(path, &text).unwrap();
        } else {
            let is_current = fs::read_to_string(path).unwrap_or_default() == text;
            assert!(is_current, "{list} is not current: ECS_BRIDGE_WRITE=1 cargo test -p ecs-bridge-core --test shown");
        }
    }
}

#[test]
fn openapi_describes_the_attributes_of_the_api() {
    let described: Value =
        serde_json::from_str(&fs::read_to_string(root().join("functions/submit/src/openapi.json")).unwrap()).unwrap();
    let properties = described["components"]["schemas"]["Record"]["properties"].as_object().unwrap();
    let described: BTreeSet<_> = properties.keys().map(String::as_str).collect();
    // These do not stand in the row as the API shows them.
    let made = ["advice", "runner_id", "pending_notifications"];
    let shown: BTreeSet<_> = Attribute::read_by(Reader::Api).chain(made).collect();
    assert_eq!(described, shown);
}
