//! Text to trees, and what is wrong with text that is no YAML.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StructureStyle, Tag};

use super::node::{Field, Node, Value};
use super::scalar;
use crate::input::problem::DocumentError;

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 100;
/// How many values may come into a document by `*alias`: a few lines can stand for more than any memory holds.
const MAX_COPIED: usize = 100_000;

/// Reads the documents of `text` that are not empty; `file` is what messages call it.
pub fn documents(file: &str, text: &str) -> Result<Vec<Node>, DocumentError> {
    let error = |(line, what): (usize, String)| DocumentError::new(file, line, what);
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|problem| error(builder.explain(&problem, text)))?;
        builder.take(event, span.start.line()).map_err(error)?;
    }
    Ok(builder.documents)
}

/// A line and what is wrong with it.
type Wrong = (usize, String);

/// Makes trees of the parser's events.
#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    /// Lists and maps that are open.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

struct Open {
    line: usize,
    anchor: usize,
    style: StructureStyle,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { fields: Vec<Field>, merged: Vec<Node>, key: Option<Key> },
}

/// The name of a field whose value comes next.
struct Key {
    name: String,
    line: usize,
    /// Whether it is the `<<` that takes in the fields of another map.
    merges: bool,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Wrong> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_key = self.expects_key();
                if is_key {
                    let merges = text == "<<" && style == ScalarStyle::Plain;
                    return self.key(Key { name: text.into_owned(), line, merges });
                }
                let as_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| means_text(&tag));
                let value = if as_text { Value::Text(text.into_owned()) } else { scalar::plain(&text) };
                self.add(Node { line, value }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                self.begin(line, anchor, style, Content::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => {
                let content = Content::Map { fields: Vec::new(), merged: Vec::new(), key: None };
                self.begin(line, anchor, style, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { line, anchor, content, .. }) = self.open.pop() else { return Ok(()) };
                let value = match content {
                    Content::List(items) => Value::List(items),
                    Content::Map { mut fields, merged, .. } => {
                        merged.into_iter().try_for_each(|node| merge(&mut fields, node))?;
                        Value::Map(fields)
                    }
                };
                self.add(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err((line, "the alias stands for a value that it is part of".into()));
                };
                self.copied += size(&node);
                if self.copied > MAX_COPIED {
                    return Err((line, "the aliases of this file stand for too many values".into()));
                }
                self.add(Node { line, ..node }, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            // What begins and ends, comments, and names of anchors, which have numbers as well.
            _ => Ok(()),
        }
    }

    /// Says why the parser stopped, and in which line the cause is.
    fn explain(&self, error: &ScanError, text: &str) -> Wrong {
        let told = translate(error, text);
        // What follows a bracket that is not closed is read as if it were inside, but is not indented more.
        let stands_outside = |open: &&Open| {
            open.style == StructureStyle::Flow
                && open.line < told.0
                && indentation(text, told.0).len() <= indentation(text, open.line).len()
        };
        let unclosed = self.open.iter().find(stands_outside);
        match unclosed {
            Some(Open { line, content: Content::List(_), .. }) => {
                (*line, "`[` is not closed with `]`".into())
            }
            Some(Open { line, .. }) => (*line, "`{` is not closed with `}`".into()),
            None => told,
        }
    }

    /// Whether the name of a field comes next.
    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn begin(
        &mut self,
        line: usize,
        anchor: usize,
        style: StructureStyle,
        content: Content,
    ) -> Result<(), Wrong> {
        if self.expects_key() {
            return Err((line, "the name of a field must be text".into()));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err((line, format!("more than {MAX_DEPTH} levels are nested here")));
        }
        self.open.push(Open { line, anchor, style, content });
        Ok(())
    }

    fn key(&mut self, key: Key) -> Result<(), Wrong> {
        let Some(Open { content: Content::Map { fields, key: next, .. }, .. }) = self.open.last_mut() else {
            return Ok(());
        };
        if let Some(first) = fields.iter().find(|field| field.name == key.name) {
            let what =
                format!("`{}` is there twice, first in line {}; keep one of them", key.name, first.line);
            return Err((key.line, what));
        }
        *next = Some(key);
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Wrong> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { fields, merged, key }) => match key.take() {
                Some(Key { merges: true, .. }) => merged.push(node),
                Some(Key { name, line, .. }) => fields.push(Field { name, line, node }),
                None => {
                    // An alias may stand for a name.
                    let (Value::Text(name) | Value::Number(name) | Value::Bool(_, name)) = node.value else {
                        return Err((node.line, "the name of a field must be text".into()));
                    };
                    return self.key(Key { name, line: node.line, merges: false });
                }
            },
        }
        Ok(())
    }
}

/// Takes in the fields of `node` that are not there yet, as `<<` asks for.
fn merge(fields: &mut Vec<Field>, node: Node) -> Result<(), Wrong> {
    match node.value {
        Value::Map(others) => {
            for other in others {
                if fields.iter().all(|field| field.name != other.name) {
                    fields.push(other);
                }
            }
            Ok(())
        }
        Value::List(maps) => maps.into_iter().try_for_each(|map| merge(fields, map)),
        other => Err((node.line, format!("`<<` takes in the fields of a group, and this is {other}"))),
    }
}

/// Whether a tag makes an unquoted word text: `!!str`, or `!` alone.
fn means_text(tag: &Tag) -> bool {
    tag.core_suffix() == Some("str") || (tag.handle().is_empty() && tag.suffix() == "!")
}

/// How many values a tree has.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum::<usize>(),
        Value::Map(fields) => fields.iter().map(|field| size(&field.node)).sum(),
        Value::Null | Value::Bool(..) | Value::Number(_) | Value::Text(_) => 0,
    }
}

/// Says what is wrong with text that is no YAML, and in which line.
fn translate(error: &ScanError, text: &str) -> Wrong {
    let last = text.lines().count().max(1);
    let line = error.marker().line().clamp(1, last);
    // A tab may spoil the end of what the line before it began.
    if let Some(line) = (line..=line + 1).find(|line| indentation(text, *line).contains('\t')) {
        return (line, "the line is indented with a tab; use spaces".to_owned());
    }
    let what = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "there is a tab where YAML needs spaces".to_owned(),
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => {
            let line = opening_quote(text, line).unwrap_or(line);
            return (line, "a quoted text begins here, and its closing quote is missing".to_owned());
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "something follows the closing quote of a text; put all of it in quotes".to_owned()
        }
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidLowSurrogateHexEscape
        | ErrorKind::InvalidLowSurrogate
        | ErrorKind::MissingLowSurrogate
        | ErrorKind::UnpairedLowSurrogate
        | ErrorKind::InvalidUnicodeEscape => {
            "a `\\` in double quotes begins an escape that YAML does not have; use single quotes".to_owned()
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            format!("`{open}` is not closed with `{}`", if *open == '[' { ']' } else { '}' })
        }
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => {
            "a list that begins with `[` is not closed with `]`, or a `,` is missing in it".to_owned()
        }
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => {
            "fields that begin with `{` are not closed with `}`, or a `,` is missing between them".to_owned()
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            format!("`{open}` is closed with `{close}`")
        }
        ErrorKind::MisplacedFlowCollectionEnd => "a bracket is closed here that was not opened".to_owned(),
        ErrorKind::UnexpectedCharacter { character } => {
            format!("a value cannot begin with `{}`; put it in quotes", character.escape_default())
        }
        ErrorKind::PlainScalarStartsWithDashFlowIndicator => {
            "a value cannot begin like this; put it in quotes".to_owned()
        }
        ErrorKind::UnknownAnchor => "the alias stands for a value that is not named before".to_owned(),
        ErrorKind::MissingAnchorOrAliasName => {
            "a value that begins with `*` or `&` must be in quotes".to_owned()
        }
        ErrorKind::RecursionLimitExceeded => "too many levels are nested here".to_owned(),
        ErrorKind::InvalidIndentation
        | ErrorKind::InvalidBlockScalarIndent
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::MappingKeyNotAllowed
        | ErrorKind::UnexpectedEofBlockSequence
        | ErrorKind::UnexpectedEofBlockMapping => {
            "the line does not fit with those before it: its indentation differs, or a quote or a `:` is missing"
                .to_owned()
        }
        ErrorKind::MappingValueNotAllowed
        | ErrorKind::InvalidColonPlacement
        | ErrorKind::InvalidMappingValueWhitespace
        | ErrorKind::FlowMappingValueAdjacentCollection => {
            "there is a `:` too many; put a value with `: ` in it in quotes".to_owned()
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            "a `:` is missing after the name of a field, or the line does not belong here".to_owned()
        }
        _ => "the line is not YAML; put a value with special characters in quotes".to_owned(),
    };
    (line, what)
}

/// The space that a line begins with.
fn indentation(text: &str, line: usize) -> &str {
    let line = text.lines().nth(line - 1).unwrap_or_default();
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// The last line up to `line` that has a quote without another.
fn opening_quote(text: &str, line: usize) -> Option<usize> {
    let is_open = |line: &str| ['\'', '"'].iter().any(|quote| line.matches(*quote).count() % 2 == 1);
    text.lines().take(line).enumerate().filter(|(_, line)| is_open(line)).map(|(nth, _)| nth + 1).last()
}
