use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Sample {
    kind: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    evidence: bool,
    count: Option<u64>,
    inner: Inner,
    #[serde(default)]
    by_name: BTreeMap<String, Inner>,
    mode: Option<Mode>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Inner {
    version: String,
    size: u32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Safe,
}

const WHOLE: &str = "\
kind: Sample
names: [a, 'on', \"1.10\"]
evidence: yes
count: 1_000
inner:
  version: v1
  size: 3
byName:
  x: &x {version: v0, size: 3}
  y: {<<: *x, size: 4}
mode: fast
";

fn error(text: &str) -> String {
    parse::<Sample>("x.yaml", text).unwrap_err().to_string()
}

#[test]
fn fields_are_read_with_aliases_and_merges() {
    let inner = |version: &str, size| Inner { version: version.into(), size };
    let expected = Sample {
        kind: "Sample".into(),
        names: vec!["a".into(), "on".into(), "1.10".into()],
        evidence: true,
        count: Some(1000),
        inner: inner("v1", 3),
        by_name: [("x".into(), inner("v0", 3)), ("y".into(), inner("v0", 4))].into(),
        mode: Some(Mode::Fast),
    };
    assert_eq!(parse::<Sample>("x.yaml", WHOLE).unwrap(), expected);
    let json = r#"{"kind": "Sample", "inner": {"version": "v1", "size": 3}}"#;
    assert_eq!(parse::<Sample>("x.yaml", json).unwrap().inner, inner("v1", 3));
}

#[test]
fn a_field_left_open_is_absent() {
    let sample: Sample = parse("x.yaml", &WHOLE.replace("names: [a, 'on', \"1.10\"]", "names:")).unwrap();
    assert!(sample.names.is_empty());
}

#[test]
fn one_mistake_is_named_with_line_and_field() {
    for (right, wrong, expected) in [
        (
            "[a,",
            "[1.10,",
            "x.yaml, line 2: `names[0]` is the number 1.10, and text is needed; put it in quotes",
        ),
        (
            "[a,",
            "[on,",
            "x.yaml, line 2: `names[0]` is `on`, which means true or false, and text is needed; put it in quotes",
        ),
        (
            "version: v1",
            "version: 1.36",
            "x.yaml, line 6: `inner.version` is the number 1.36, and text is needed; put it in quotes",
        ),
        (
            "[a, 'on', \"1.10\"]",
            "linux",
            "x.yaml, line 2: `names` is text, and a list is needed; write `[linux]`",
        ),
        ("size: 3", "size: many", "x.yaml, line 7: `inner.size` is text, and a whole number is needed"),
        ("size: 3", "size: -1", "x.yaml, line 7: `inner.size` cannot be the number -1"),
        (
            "evidence: yes",
            "evidence: maybe",
            "x.yaml, line 3: `evidence` is text, and true or false is needed",
        ),
        (
            "  size: 3",
            "  siez: 3\n  size: 3",
            "x.yaml, line 7: `inner.siez` is not a field that is known; did you mean `size`?",
        ),
        (
            "evidence: yes",
            "evidence: yes\nunheard: of",
            "x.yaml, line 4: `unheard` is not a field that is known; known are `kind`, `names`, `evidence`, `count`, `inner`, `byName`, `mode`",
        ),
        ("mode: fast", "mode: fats", "x.yaml, line 11: `mode`: `fats` is not known; did you mean `fast`?"),
        (
            "  size: 3",
            "  size: 3\n  size: 4",
            "x.yaml, line 8: `size` is there twice, first in line 7; keep one of them",
        ),
        ("  size: 3", "\tsize: 3", "x.yaml, line 7: the line is indented with a tab; use spaces"),
        (
            "version: v1",
            "version: 'v1",
            "x.yaml, line 6: a quoted text begins here, and its closing quote is missing",
        ),
        (
            "mode: fast",
            "mode: fast\n---\nmode: safe",
            "x.yaml, line 13: a second document begins here, after `---`; put it into a file of its own",
        ),
        ("[a, 'on', \"1.10\"]", "[a, 'on'", "x.yaml, line 2: `[` is not closed with `]`"),
        ("size: 4", "size: *other", "x.yaml, line 10: the alias stands for a value that is not named before"),
        (
            "version: v1",
            "version: a: b",
            "x.yaml, line 6: there is a `:` too many; put a value with `: ` in it in quotes",
        ),
        ("version: v1", "version: @v1", "x.yaml, line 6: a value cannot begin with `@`; put it in quotes"),
        (
            "  y: {<<: *x, size: 4}",
            "  y:",
            "x.yaml has 2 errors\n  line 10: `byName.y.version` is missing\n  line 10: `byName.y.size` is missing",
        ),
        ("kind: Sample", "kind: [Sample]", "x.yaml, line 1: `kind` is a list, and text is needed"),
    ] {
        assert!(WHOLE.contains(right), "{right}");
        assert_eq!(error(&WHOLE.replacen(right, wrong, 1)), expected);
    }
}

#[test]
fn a_mistake_within_brackets_is_named_where_it_is() {
    let text = "{\n  \"kind\": \"Sample\",\n  \"names\": [\"a\"\n    \"b\"],\n  \"inner\": {}\n}\n";
    assert!(error(text).starts_with("x.yaml, line 4: "), "{}", error(text));
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "names: linux\nimgaes: []\ninner: {}\ncount: few\nbyName: {a: {version: 1.2, size: 1}, b: {version: 1.3, size: x}}\n";
    assert_eq!(
        error(text),
        "x.yaml has 9 errors\n  \
         line 1: `names` is text, and a list is needed; write `[linux]`\n  \
         line 1: `kind` is missing\n  \
         line 2: `imgaes` is not a field that is known; known are `kind`, `names`, `evidence`, `count`, `inner`, `byName`, `mode`\n  \
         line 3: `inner.version` is missing\n  \
         line 3: `inner.size` is missing\n  \
         line 4: `count` is text, and a whole number is needed\n  \
         line 5: `byName.a.version` is the number 1.2, and text is needed; put it in quotes\n  \
         line 5: `byName.b.version` is the number 1.3, and text is needed; put it in quotes\n  \
         line 5: `byName.b.size` is text, and a whole number is needed"
    );
}

#[test]
fn files_without_content_are_empty() {
    for text in ["", "\n\n", "# nothing yet\n", "---\n", "~"] {
        assert_eq!(error(text), "x.yaml is empty", "{text:?}");
    }
    assert_eq!(error("just words"), "x.yaml, line 1: the file is text, and a group of fields is needed");
}

#[test]
fn aliases_cannot_fill_the_memory() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, last) in ('b'..='j').zip('a'..) {
        let _ = writeln!(
            text,
            "{name}: &{name} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]"
        );
    }
    assert!(error(&text).contains("aliases of this file stand for too many values"));
    assert!(error("a: &a [*a]").contains("part of"));
    let deep = "[".repeat(100_000);
    assert!(error(&deep).contains("nested here"), "{}", error(&deep));
}

#[test]
fn the_line_of_a_field_is_found_by_its_path() {
    let tree = document("x.yaml", WHOLE).unwrap();
    for (path, line) in
        [("kind", 1), ("names[1]", 2), ("inner.size", 7), ("byName.y.size", 10), ("inner.nothing", 5)]
    {
        assert_eq!(tree.line_of(path), line, "{path}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\n\t]{0,200}") {
        let _ = parse::<Sample>("x.yaml", &text);
        let _ = parse::<serde_json::Value>("x.yaml", &text);
    }

    /// What this program's own JSON says is what YAML reads.
    #[test]
    fn json_is_read_as_it_is(text in "[ -~\u{e4}\u{4e2d}]{0,20}", number in any::<i64>(), flag in any::<bool>()) {
        let value = serde_json::json!({"text": text, "list": [number, flag, null], "inner": {"a": {}}});
        let read: serde_json::Value = parse("x.json", &value.to_string()).unwrap();
        prop_assert_eq!(read, value);
    }
}

#[test]
fn number_is_text_only_where_that_is_asked_for() {
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Pinned {
        tag: String,
        count: u32,
    }
    let text = "tag: 3.20\ncount: 2\n";
    assert_eq!(parse_lenient::<Pinned>("x.yaml", text).unwrap(), Pinned { tag: "3.20".into(), count: 2 });
    assert!(parse::<Pinned>("x.yaml", text).is_err());
}
