//! Whether objects have only fields that their kinds have, by lists taken from the published schemas.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields of each kind: a path a line, `[]` for the items of a list, `*` where any name goes.
const FIELDS: &str = include_str!("testdata/fields.json");

/// The fields of `object` that its kind does not have.
pub(super) fn unknown(object: &Value) -> Vec<String> {
    let lists: BTreeMap<String, Vec<String>> = serde_json::from_str(FIELDS).unwrap();
    let kind = format!("{} {}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let known = lists.get(&kind).unwrap_or_else(|| panic!("no list of fields for {kind}"));
    let mut paths = Vec::new();
    collect(object, "", &mut paths);
    let fits = |path: &str, pattern: &str| {
        pattern.strip_suffix('*').map_or(path == pattern, |start| path.starts_with(start))
    };
    paths.retain(|path| !known.iter().any(|pattern| fits(path, pattern)));
    paths
}

fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, paths);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for value in list {
                collect(value, &format!("{path}[]"), paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

#[test]
fn a_field_that_is_none_is_found() {
    let object = serde_json::json!({
        "apiVersion": "upgrade.cattle.io/v1", "kind": "Plan", "spec": {"version": "v1", "chanel": "x"},
    });
    assert_eq!(unknown(&object), ["spec.chanel"]);
}
