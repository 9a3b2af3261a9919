//! Kubernetes objects as `kubectl get -o json` and `-o yaml` print them, or as they stand in files.

use serde_json::Value;

use crate::input::yaml::{self, Node};
use crate::input::{DocumentError, json};

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
    if !is_json(text) {
        return Ok(trees(file, text)?.into_iter().map(|object| object.value).collect());
    }
    let documents: Vec<Value> = json::documents(file, text)?;
    Ok(documents.into_iter().flat_map(items).filter(Value::is_object).collect())
}

/// An object, and where its fields are in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub(super) value: Value,
    /// `None` if the text is JSON that YAML's reader does not take.
    pub(super) tree: Option<Node>,
}

/// The objects of a text as [`objects`] gives them, with the lines of their fields.
pub(super) fn trees(file: &str, text: &str) -> Result<Vec<Object>, ObjectsError> {
    let documents = match yaml::documents(file, text) {
        Ok(documents) => documents,
        Err(_) if is_json(text) => {
            let values = objects(file, text)?.into_iter();
            return Ok(values.map(|value| Object { value, tree: None }).collect());
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for tree in documents.into_iter().flat_map(tree_items) {
        let value: Value = tree.to(file)?;
        if value.is_object() {
            found.push(Object { value, tree: Some(tree) });
        }
    }
    Ok(found)
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// The items of a list, or the object itself.
fn tree_items(tree: Node) -> Vec<Node> {
    match (&tree.value, tree.get("items").map(|items| &items.value)) {
        (yaml::Value::List(items), _) | (_, Some(yaml::Value::List(items))) => items.clone(),
        _ => vec![tree],
    }
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
