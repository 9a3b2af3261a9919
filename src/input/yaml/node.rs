//! A YAML document as a tree.

use std::fmt;

/// A value with the line that it begins in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The line, from 1.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: `~`, `null`, or a field that was left open.
    Null,
    /// True or false, as it was written: `true`, `yes`, `on` …
    Bool(bool, String),
    /// A number, as it was written.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Fields in their order. Each name is there once.
    Map(Vec<Field>),
}

/// A field of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The line of the name, from 1.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// Returns the value of the field `name`, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.field(name).map(|field| &field.node)
    }

    fn field(&self, name: &str) -> Option<&Field> {
        match &self.value {
            Value::Map(fields) => fields.iter().find(|field| field.name == name),
            Value::Null | Value::Bool(..) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        }
    }

    /// Returns the value at `path`, written as `spec.images[3].ref`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split(['.', '[']).try_fold(self, |node, step| node.step(step).map(|(_, inner)| inner))
    }

    /// Returns the line of the field at `path`, written as `spec.images[3].ref`, or of the nearest one around it.
    pub fn line_of(&self, path: &str) -> usize {
        let (mut node, mut line) = (self, self.line);
        for step in path.split(['.', '[']) {
            let Some((at, inner)) = node.step(step) else { break };
            (line, node) = (at, inner);
        }
        line
    }

    /// The value that one step of a path leads to, and the line that it begins in with its name.
    fn step(&self, step: &str) -> Option<(usize, &Self)> {
        match (&self.value, step.strip_suffix(']').and_then(|nth| nth.parse::<usize>().ok())) {
            (Value::List(items), Some(nth)) => items.get(nth).map(|item| (item.line, item)),
            _ => self.field(step).map(|field| (field.line, &field.node)),
        }
    }
}

impl fmt::Display for Value {
    /// Says what the value is, after "is".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("empty"),
            Self::Bool(_, written) => write!(f, "`{written}`, which means true or false"),
            Self::Number(written) => write!(f, "the number {written}"),
            Self::Text(_) => f.write_str("text"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a group of fields"),
        }
    }
}
