//! Objects for `kubectl apply`, as YAML.

use std::fmt::Write as _;

use serde_json::Value;

/// The objects as one YAML stream.
pub fn documents(objects: &[Value]) -> String {
    let text = |object: &Value| {
        let mut text = String::new();
        block(&mut text, object, 0);
        text
    };
    objects.iter().map(text).collect::<Vec<_>>().join("---\n")
}

/// Writes a value that stands on lines of its own.
fn block(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                indent(out, depth);
                let _ = write!(out, "{}:", scalar(key));
                after(out, value, depth, depth + 2);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                indent(out, depth);
                out.push('-');
                let mut item = String::new();
                if is_flat(value) {
                    after(out, value, depth, depth);
                } else {
                    // The first line of the item goes behind the dash.
                    block(&mut item, value, depth + 2);
                    out.push(' ');
                    out.push_str(item.trim_start());
                }
            }
        }
        other => {
            indent(out, depth);
            let _ = writeln!(out, "{}", flat(other));
        }
    }
}

fn after(out: &mut String, value: &Value, depth: usize, map_depth: usize) {
    if is_flat(value) {
        let _ = writeln!(out, " {}", flat(value));
    } else {
        out.push('\n');
        block(out, value, if value.is_array() { depth } else { map_depth });
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

/// Whether a value fits behind its key.
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // Numbers, booleans, null and empty collections are the same in JSON.
        other => other.to_string(),
    }
}

/// Text as it is where nothing else could be meant, or else quoted as in JSON, which YAML reads as well.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !text.ends_with(':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/:@+-".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn looks_like_what_people_write() {
        let object = json!({"a": {"b": [{"c": "1", "d": []}, "x y"], "e": {}}, "f": true, "g": "on"});
        assert_eq!(
            documents(&[object, json!({"h": 1})]),
            "a:\n  b:\n  - c: \"1\"\n    d: []\n  - \"x y\"\n  e: {}\nf: true\ng: \"on\"\n---\nh: 1\n"
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{1,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn yaml_readers_read_what_was_meant(inner in value()) {
            let object = json!({ "spec": inner });
            let read: Value = serde_saphyr::from_str(&documents(std::slice::from_ref(&object))).unwrap();
            prop_assert_eq!(read, object);
        }
    }
}
