//! Whether a command printed what a page shows.

/// Whether `printed` is what is `shown`: a line `…` stands for any number of lines, `…` in a line for any text, and
/// digests, names of keys, times and gaps are all alike.
pub(crate) fn matches(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, more)| line_matches(&normal(first), &normal(line)) && matches(rest, more)),
    }
}

fn line_matches(shown: &str, printed: &str) -> bool {
    match shown.split_once('…') {
        None => shown == printed,
        Some((start, rest)) => printed.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| line_matches(rest, &tail[at..]))
        }),
    }
}

/// The line with what differs from run to run made alike.
fn normal(line: &str) -> String {
    let mut normal = String::new();
    let mut rest = line.trim_end();
    while let Some(first) = rest.chars().next() {
        let digits = rest.chars().take_while(char::is_ascii_hexdigit).count();
        let before = normal.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric());
        if let Some(length) = time(rest).filter(|_| !before) {
            normal.push_str("TIME");
            rest = &rest[length..];
        } else if digits >= MIN_HEX && !before {
            normal.push_str("HEX");
            rest = &rest[digits..];
        } else {
            // The columns of a table are as wide as what stands in them.
            if first != ' ' || !normal.ends_with(' ') {
                normal.push(first);
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    normal
}

/// The shortest run of hexadecimal digits that is taken for a part of a digest.
const MIN_HEX: usize = 12;

/// The length of a time such as `2026-08-21T09:30:00.123Z` at the start of `text`.
fn time(text: &str) -> Option<usize> {
    const SHAPE: &str = "0000-00-00T00:00:00";
    let fits = |(shape, c): (char, char)| match shape {
        '0' => c.is_ascii_digit(),
        'T' => c == 'T' || c == ' ',
        other => c == other,
    };
    let matched = SHAPE.chars().zip(text.chars()).filter(|pair| fits(*pair)).count();
    (matched == SHAPE.len()).then(|| {
        let tail = &text[SHAPE.len()..];
        SHAPE.len() + tail.find(|c: char| !c.is_ascii_digit() && c != '.' && c != 'Z').unwrap_or(tail.len())
    })
}

#[test]
fn what_is_alike_and_what_is_not() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let same = |shown: &str, printed: &str| matches(&lines(shown), &lines(printed));
    assert!(same("a\n…\nz", "a\nb\nc\nz"));
    assert!(same("…\nz", "z"));
    assert!(!same("a\n…\nz", "a\nb"));
    assert!(same("1 image for … nodes", "1 image for 12 and more nodes"));
    assert!(same("sha256:0123456789abcdef by da8c6e7c06909e26", "sha256:00ff00ff00ff00 by 0000000000000000"));
    assert!(same("at 2026-08-21T09:30:00Z  x", "at 2027-01-01T00:00:01.5Z x"));
    assert!(!same("3 images", "4 images"));
    assert!(!same("", "error"));
    assert!(!same("v1.36.3+k0s.2", "v1.36.3+k0s.1"));
}
