//! Kubernetes objects as `kubectl get -o json` and `-o yaml` print them, or as they stand in files.

use serde_json::Value;

/// The largest file of objects that is read, in bytes. Five thousand nodes with all that kubectl says about them have
/// about a hundred million.
pub const MAX_OBJECTS_BYTES: u64 = 256 * 1024 * 1024;

/// Why a text holds no objects.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Neither JSON nor YAML.
    #[error("not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not YAML.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// The objects are not of the kind that is needed.
    #[error("{0}")]
    Unfit(String),
}

/// The objects of a text: one object, several documents, or a `List`, in JSON or YAML. Nothing is decoded through a
/// schema, so that what is absent stays absent.
pub(super) fn objects(text: &str) -> Result<Vec<Value>, ObjectsError> {
    let documents: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>()?
    } else {
        serde_saphyr::from_multiple(text).map_err(|error| ObjectsError::Yaml(error.to_string()))?
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
            assert_eq!(objects(text).unwrap(), expected, "{text}");
        }
        assert!(objects("").unwrap().is_empty());
        assert!(objects("just words").unwrap().is_empty());
        assert!(objects("{").is_err());
        assert!(objects("a: [").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,200}") {
            let _ = objects(&text);
        }
    }
}
