//! Kubernetes objects as `kubectl get -o json` and `-o yaml` print them, or as they stand in files.

use serde_json::Value;

use crate::input::{DocumentError, json, yaml};

/// The largest file of objects that is read, in bytes. Five thousand nodes with all that kubectl says about them have
/// about a hundred million.
pub const MAX_OBJECTS_BYTES: u64 = 256 * 1024 * 1024;

/// Why a text holds no objects.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Neither JSON nor YAML.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The objects are not of the kind that is needed.
    #[error("{0}")]
    Unfit(String),
}

/// The objects of a text: one object, several documents, or a `List`, in JSON or YAML. Nothing is decoded through a
/// schema, so that what is absent stays absent.
///
/// `file` is what messages call it.
pub(super) fn objects(file: &str, text: &str) -> Result<Vec<Value>, ObjectsError> {
    let documents: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        json::documents(file, text)?
    } else {
        yaml::documents(file, text)?.iter().map(|document| document.to(file)).collect::<Result<_, _>>()?
    };
    Ok(documents.into_iter().flat_map(items).filter(Value::is_object).collect())
}

/// The items of a list, or the object itself.
fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Array(items) => items,
        Value::Object(mut object) if object.get("items").is_some_and(Value::is_array) => {
            match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            }
        }
        other => vec![other],
    }
}

/// The value at a path of keys.
pub(super) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// The text at a path of keys; none where it is empty.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(object, path)?.as_str().filter(|text| !text.is_empty())
}

/// Whether the object is of this kind, or does not say.
pub(super) fn is_kind(object: &Value, kind: &str) -> bool {
    text(object, &["kind"]).is_none_or(|found| found == kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_gives_the_same_objects() {
        let expected: Vec<Value> = vec![serde_json::json!({"kind": "A"}), serde_json::json!({"kind": "B"})];
        for text in [
            r#"{"kind":"List","items":[{"kind":"A"},{"kind":"B"}]}"#,
            r#"[{"kind":"A"},{"kind":"B"}]"#,
            "{\"kind\":\"A\"}\n{\"kind\":\"B\"}",
            "kind: A\n---\nkind: B\n",
            "apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n",
        ] {
            assert_eq!(objects("x.yaml", text).unwrap(), expected, "{text}");
        }
        assert!(objects("x.yaml", "").unwrap().is_empty());
        assert!(objects("x.yaml", "just words").unwrap().is_empty());
        assert!(objects("x.yaml", "{").is_err());
        assert!(objects("x.yaml", "a: [").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,200}") {
            let _ = objects("x.yaml", &text);
        }
    }
}
