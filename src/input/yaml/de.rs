//! Trees to the fields that a program needs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::node::{Field, Node, Value};
use super::scalar;
use crate::input::problem::{DocumentError, Problem};

/// The most mistakes that are looked for in one file.
const MAX_PROBLEMS: usize = 50;
/// How many letters of a value are repeated in a message.
const SHOWN: usize = 60;

impl Node {
    /// Reads the tree into `T`. All mistakes are named at once.
    pub fn to<T: DeserializeOwned>(&self, file: &str) -> Result<T, DocumentError> {
        self.read(file, &Context::default())
    }

    /// Reads the tree into `T`, and takes an unquoted number for the text that was written where text is needed.
    ///
    /// This is for files that only this program reads: another one would read the version `3.20` as `3.2`.
    pub fn to_lenient<T: DeserializeOwned>(&self, file: &str) -> Result<T, DocumentError> {
        self.read(file, &Context { numbers_are_text: true, ..Context::default() })
    }

    fn read<'n, T: DeserializeOwned>(
        &'n self,
        file: &str,
        context: &Context<'n>,
    ) -> Result<T, DocumentError> {
        let mut found: Vec<Error> = Vec::new();
        loop {
            let error = match T::deserialize(Reader { node: self, context }) {
                Ok(read) if found.is_empty() => return Ok(read),
                Ok(_) => break,
                Err(error) => error,
            };
            // What is wrong is passed over from now on, to see what else there is.
            let is_new = context.pass_over(&error);
            if is_new || found.is_empty() {
                found.push(error);
            }
            if !is_new || found.len() == MAX_PROBLEMS {
                break;
            }
        }
        let told = found.iter().filter(|error| !found.iter().any(|other| other.tells_more_than(error)));
        let problems = told.map(|error| Problem { line: error.line, what: error.what.clone() });
        Err(DocumentError::all(file, problems.collect()))
    }
}

/// Where the reading is, and what was found wrong before.
#[derive(Default)]
struct Context<'de> {
    /// Whether an unquoted number can stand for text.
    numbers_are_text: bool,
    path: RefCell<Vec<Step<'de>>>,
    /// By path: whether the field does not belong there, so that it is skipped.
    wrong: RefCell<BTreeMap<String, bool>>,
}

/// A step from a value to one within it.
#[derive(Clone, Copy)]
enum Step<'de> {
    Field { name: &'de str, line: usize },
    Item(usize),
}

impl<'de> Context<'de> {
    /// Remembers what is wrong; false if it was known, or if there is no telling where it is.
    fn pass_over(&self, error: &Error) -> bool {
        let is_skipped = matches!(error.kind, Kind::Unknown { .. });
        let insert = |path: &String| self.wrong.borrow_mut().insert(path.clone(), is_skipped);
        error.path.as_ref().is_some_and(|path| insert(path).is_none())
    }

    /// Does `read` one step further.
    fn within<T>(&self, step: Step<'de>, read: impl FnOnce() -> T) -> T {
        self.path.borrow_mut().push(step);
        let value = read();
        self.path.borrow_mut().pop();
        value
    }

    /// The path of the value that is read, `spec.images[3].ref`; empty for the whole file.
    fn path(&self) -> String {
        let mut text = String::new();
        for step in self.path.borrow().iter() {
            let _ = match step {
                Step::Field { name, .. } if text.is_empty() => write!(text, "{name}"),
                Step::Field { name, .. } => write!(text, ".{name}"),
                Step::Item(nth) => write!(text, "[{nth}]"),
            };
        }
        text
    }

    /// Whether the value that is read is known to be wrong, and whether it does not belong there at all.
    fn wrong(&self) -> Option<bool> {
        let wrong = self.wrong.borrow();
        if wrong.is_empty() { None } else { wrong.get(&self.path()).copied() }
    }

    /// The line of the name of the field that is read.
    fn line(&self) -> Option<usize> {
        let path = self.path.borrow();
        match path.last() {
            Some(Step::Field { line, .. }) => Some(*line),
            Some(Step::Item(_)) | None => None,
        }
    }
}

/// What is wrong with one value.
#[derive(Debug)]
struct Error {
    kind: Kind,
    what: String,
    line: usize,
    /// Where; `None` until it is known.
    path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The field with this name is missing in the value.
    Missing(&'static str),
    /// The field `name` does not belong in the value; `meant` may have been.
    Unknown { name: String, meant: Option<&'static str> },
    /// The value cannot be used.
    Value,
}

impl Error {
    /// Says where the error is, unless that is known more exactly: in the value `node`, which is read.
    fn at(self, node: &Node, context: &Context<'_>) -> Self {
        if self.path.is_some() {
            return self;
        }
        let path = context.path();
        let (path, line, what) = match &self.kind {
            Kind::Missing(name) => {
                let path = join(&path, name);
                let what = format!("`{path}` {}", self.what);
                (path, context.line().unwrap_or(node.line), what)
            }
            Kind::Unknown { name, .. } => {
                let path = join(&path, name);
                let what = format!("`{path}` {}", self.what);
                (path, node.line_of(name), what)
            }
            Kind::Value if path.is_empty() => (path, node.line, self.what),
            Kind::Value => {
                let what = format!("`{path}`: {}", self.what);
                (path, node.line, what)
            }
        };
        Self { kind: self.kind, what, line, path: Some(path) }
    }

    /// Whether this is the same as `other`, said more exactly, or its cause.
    fn tells_more_than(&self, other: &Self) -> bool {
        let (Some(path), Some(of)) = (&self.path, &other.path) else { return false };
        let is_inside = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| outer.is_empty() || rest.starts_with(['.', '[']))
        };
        match (&self.kind, &other.kind) {
            (Kind::Missing(_), Kind::Missing(_)) => is_inside(path, of),
            (Kind::Missing(_), Kind::Unknown { .. } | Kind::Value) => false,
            (Kind::Unknown { name, meant: Some(meant) }, Kind::Missing(_)) => {
                path.strip_suffix(name.as_str()) == of.strip_suffix(meant)
            }
            (Kind::Unknown { .. } | Kind::Value, _) => of != path && is_inside(of, path),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { kind: Kind::Value, what: message.to_string(), line: 0, path: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("this is {}, and {} is needed", described(unexpected), needed(expected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(len: usize, _: &dyn Expected) -> Self {
        Self::custom(format!("{len} is not the right number of items"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("`{variant}` is not known{}", suggestion(variant, expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let what = format!("is not a field that is known{}", suggestion(field, expected));
        let kind = Kind::Unknown { name: field.to_owned(), meant: nearest(field, expected) };
        Self { kind, ..Self::custom(what) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing(field), ..Self::custom("is missing") }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is there twice"))
    }
}

/// What a reader needs, in the words that messages have for it.
fn needed(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "a string" | "a borrowed string" | "string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a group of fields".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => "a whole number".to_owned(),
        _ if expected.starts_with("struct ") => "a group of fields".to_owned(),
        _ => expected,
    }
}

fn described(value: Unexpected<'_>) -> String {
    match value {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) if text.len() <= SHOWN => format!("`{text}`"),
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "text".to_owned(),
        Unexpected::Unit | Unexpected::Option => "empty".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map | Unexpected::NewtypeStruct => "a group of fields".to_owned(),
        Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_) => "something else".to_owned(),
    }
}

/// The path of a field within the value at `path`.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The one of `known` that `wrong` is nearly.
fn nearest(wrong: &str, known: &[&'static str]) -> Option<&'static str> {
    let (distance, name) = known.iter().map(|name| (distance(wrong, name), *name)).min()?;
    (distance <= 1 + name.len() / 4).then_some(name)
}

/// What may have been meant in place of `wrong`.
fn suggestion(wrong: &str, known: &[&'static str]) -> String {
    match nearest(wrong, known) {
        Some(name) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => String::new(),
        None => {
            let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            format!("; known are {}", names.join(", "))
        }
    }
}

/// How many letters have to be changed, added, taken out or swapped to get from one word to the other, without regard to
/// upper case (the optimal string alignment distance).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (lower(a), lower(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(x != y)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn lower(text: &str) -> Vec<char> {
    text.chars().take(SHOWN).map(|c| c.to_ascii_lowercase()).collect()
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Reader<'de, 'c> {
    node: &'de Node,
    context: &'c Context<'de>,
}

impl<'de> Reader<'de, '_> {
    fn fail(&self, what: impl Into<String>) -> Error {
        Error { kind: Kind::Value, what: what.into(), line: self.node.line, path: Some(self.context.path()) }
    }

    /// What messages call the value.
    fn name(&self) -> String {
        let path = self.context.path();
        if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
    }

    fn wrong_type(&self, needed: &str) -> Error {
        let advice = match (&self.node.value, needed) {
            (Value::Number(_) | Value::Bool(..), "text") => "; put it in quotes".to_owned(),
            (Value::Text(text), "a list") if text.len() <= SHOWN && !text.contains('\n') => {
                format!("; write `[{text}]`")
            }
            _ => String::new(),
        };
        self.fail(format!("{} is {}, and {needed} is needed{advice}", self.name(), self.node.value))
    }

    /// Whether the value was found wrong before, so that anything may stand for it now.
    fn is_passed_over(&self) -> bool {
        self.context.wrong().is_some()
    }

    fn whole_number<T: TryFrom<i128>>(&self) -> Result<T, Error> {
        let Value::Number(written) = &self.node.value else {
            return Err(self.wrong_type("a whole number"));
        };
        scalar::whole(written)
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.fail(format!("{} cannot be the number {written}", self.name())))
    }

    fn list<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, Error> {
        let items = Items { context: self.context, items: items.iter().enumerate() };
        visitor.visit_seq(items).map_err(|error| error.at(self.node, self.context))
    }

    /// Gives the fields of a map or, if `known` names its fields, of a struct.
    fn map<V: Visitor<'de>>(
        self,
        fields: &'de [Field],
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // In a struct, a field that was left open is as good as absent.
        let is_there = |field: &&'de Field| known.is_empty() || field.node.value != Value::Null;
        let mut entries: Vec<Entry<'de>> = fields
            .iter()
            .filter(is_there)
            .map(|field| Entry { name: &field.name, line: field.line, node: &field.node })
            .collect();
        let line = self.context.line().unwrap_or(self.node.line);
        for name in known {
            let step = Step::Field { name, line };
            if entries.iter().all(|entry| entry.name != *name)
                && self.context.within(step, || self.context.wrong().is_some())
            {
                entries.push(Entry { name, line, node: self.node });
            }
        }
        let access = Fields {
            context: self.context,
            entries: entries.into_iter(),
            is_struct: !known.is_empty(),
            next: None,
        };
        visitor.visit_map(access).map_err(|error| error.at(self.node, self.context))
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = if self.is_passed_over() { <$type>::default() } else { self.whole_number::<$type>()? };
            visitor.$visit(number).map_err(|error: Error| error.at(self.node, self.context))
        })+
    };
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match &self.node.value {
            _ if self.is_passed_over() => visitor.visit_unit(),
            Value::Null => visitor.visit_unit(),
            Value::Bool(value, _) => visitor.visit_bool(*value),
            Value::Number(written) => {
                let whole = scalar::whole(written);
                if let Some(number) = whole.and_then(|number| u64::try_from(number).ok()) {
                    visitor.visit_u64(number)
                } else if let Some(number) = whole.and_then(|number| i64::try_from(number).ok()) {
                    visitor.visit_i64(number)
                } else if let Some(number) = scalar::fractional(written) {
                    visitor.visit_f64(number)
                } else {
                    visitor.visit_str(written)
                }
            }
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => return self.list(items, visitor),
            Value::Map(fields) => return self.map(fields, &[], visitor),
        };
        read.map_err(|error: Error| error.at(self.node, self.context))
    }

    whole_numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            _ if self.is_passed_over() => visitor.visit_bool(false),
            Value::Bool(value, _) => visitor.visit_bool(*value),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = match &self.node.value {
            _ if self.is_passed_over() => Some(0.0),
            Value::Number(written) => scalar::fractional(written),
            _ => None,
        };
        number.map_or_else(|| Err(self.wrong_type("a number")), |number| visitor.visit_f64(number))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = match &self.node.value {
            _ if self.is_passed_over() => "",
            Value::Text(text) => text,
            Value::Number(written) if self.context.numbers_are_text => written,
            _ => return Err(self.wrong_type("text")),
        };
        visitor.visit_str(text).map_err(|error: Error| error.at(self.node, self.context))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_passed_over() || self.node.value == Value::Null {
            return visitor.visit_none();
        }
        visitor.visit_some(self).map_err(|error: Error| error.at(self.node, self.context))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error: Error| error.at(self.node, self.context))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            _ if self.is_passed_over() => self.list(&[], visitor),
            Value::List(items) => self.list(items, visitor),
            _ => Err(self.wrong_type("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            _ if self.is_passed_over() => self.map(&[], known, visitor),
            Value::Null => self.map(&[], known, visitor),
            Value::Map(fields) => self.map(fields, known, visitor),
            _ => Err(self.wrong_type("a group of fields")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match &self.node.value {
            Value::Text(name) => Variant { reader: self, name, content: None },
            Value::Map(fields) if fields.len() == 1 => {
                Variant { reader: self, name: &fields[0].name, content: Some(&fields[0]) }
            }
            _ => return Err(self.wrong_type("text")),
        };
        visitor.visit_enum(variant).map_err(|error: Error| error.at(self.node, self.context))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i128(self.whole_number()?)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u128(self.whole_number()?)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct }
}

/// The items of a list.
struct Items<'de, 'c> {
    context: &'c Context<'de>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let context = self.context;
        let is_right = |(nth, _): &(usize, _)| context.within(Step::Item(*nth), || context.wrong().is_none());
        let Some((nth, node)) = self.items.find(is_right) else { return Ok(None) };
        context.within(Step::Item(nth), || {
            seed.deserialize(Reader { node, context }).map(Some).map_err(|error| error.at(node, context))
        })
    }
}

/// A field on its way to where it belongs.
#[derive(Clone, Copy)]
struct Entry<'de> {
    name: &'de str,
    line: usize,
    node: &'de Node,
}

/// The fields of a map.
struct Fields<'de, 'c> {
    context: &'c Context<'de>,
    entries: std::vec::IntoIter<Entry<'de>>,
    is_struct: bool,
    next: Option<Entry<'de>>,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let context = self.context;
        let Some(entry) = self.entries.find(|entry| {
            let step = Step::Field { name: entry.name, line: entry.line };
            // In a struct, something has to stand for a field that belongs there.
            context.within(step, || context.wrong().is_none_or(|is_skipped| self.is_struct && !is_skipped))
        }) else {
            return Ok(None);
        };
        self.next = Some(entry);
        let name: StrDeserializer<'_, Error> = entry.name.into_deserializer();
        // What the name of a field is told to be wrong for is told by the map that it is in.
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some(Entry { name, line, node }) = self.next.take() else {
            return Err(de::Error::custom("a field has no value"));
        };
        let context = self.context;
        context.within(Step::Field { name, line }, || {
            seed.deserialize(Reader { node, context }).map_err(|error| error.at(node, context))
        })
    }
}

/// One of several forms that a value may have: a word, or a field that the form is named by.
struct Variant<'de, 'c> {
    reader: Reader<'de, 'c>,
    name: &'de str,
    content: Option<&'de Field>,
}

impl<'de> Variant<'de, '_> {
    fn content<T>(self, read: impl FnOnce(Reader<'de, '_>) -> Result<T, Error>) -> Result<T, Error> {
        let Some(field) = self.content else {
            return Err(self.reader.fail(format!(
                "{} needs a value for `{}`",
                self.reader.name(),
                self.name
            )));
        };
        let context = self.reader.context;
        context.within(Step::Field { name: &field.name, line: field.line }, || {
            read(Reader { node: &field.node, context })
        })
    }
}

impl<'de> EnumAccess<'de> for Variant<'de, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            Some(field) if field.node.value != Value::Null => {
                Err(self.reader.fail(format!("`{}` takes no value", self.name)))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.content(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(|reader| reader.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content(|reader| reader.deserialize_struct("", known, visitor))
    }
}
