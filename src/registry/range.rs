//! The headers `Range` of pulls and `Content-Range` of pushes, as far as blobs need them: one range of bytes.

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Everything: there is no header, or one that cannot be read and is therefore ignored (RFC 9110, 14.2).
    Whole,
    /// The bytes from `start` to before `end`; at least one.
    Part {
        /// The first byte.
        start: u64,
        /// The byte after the last one.
        end: u64,
    },
    /// Something that the blob does not have.
    Unsatisfiable,
}

/// Reads the header `value` for a blob of `size` bytes.
///
/// Several ranges at once are answered with the whole blob, which the specification allows and clients of registries
/// never ask for.
pub fn parse(value: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = value.and_then(strip_unit) else { return Wanted::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    match (number(first), number(last)) {
        // The last `n` bytes.
        (Number::Missing, Number::Value(n)) if n > 0 && size > 0 => {
            Wanted::Part { start: size.saturating_sub(n), end: size }
        }
        (Number::Missing, Number::Value(_)) => Wanted::Unsatisfiable,
        (Number::Value(start), Number::Missing) => part(start, u64::MAX, size),
        (Number::Value(start), Number::Value(last)) if start > last => Wanted::Unsatisfiable,
        (Number::Value(start), Number::Value(last)) => part(start, last, size),
        _ => Wanted::Whole,
    }
}

/// Reads `<first>-<last>`, the form that the distribution specification gives to `Content-Range` when a chunk is pushed:
/// the numbers of its first and its last byte.
pub(super) fn parse_chunk(value: &str) -> Option<(u64, u64)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|n| digits && *n < u64::MAX)
    };
    let (first, last) = value.split_once('-')?;
    Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
}

fn part(start: u64, last: u64, size: u64) -> Wanted {
    if start >= size {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { start, end: last.saturating_add(1).min(size) }
}

fn strip_unit(value: &str) -> Option<&str> {
    let (unit, spec) = value.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(spec)
}

enum Number {
    Missing,
    Value(u64),
    Malformed,
}

fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::Missing,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            // More than fits is beyond the end of everything.
            Number::Value(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Number::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Wanted::{Part, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn table() {
        for (value, wanted) in [
            ("bytes=500-1499", Part { start: 500, end: 1500 }),
            ("bytes=500-", Part { start: 500, end: 3000 }),
            ("bytes=-500", Part { start: 2500, end: 3000 }),
            ("bytes=-5000", Part { start: 0, end: 3000 }),
            ("bytes=2000-5000", Part { start: 2000, end: 3000 }),
            ("bytes=0-0", Part { start: 0, end: 1 }),
            ("Bytes = 0 - 9", Part { start: 0, end: 10 }),
            ("bytes=0-99999999999999999999999", Part { start: 0, end: 3000 }),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=3000-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("", Whole),
            ("bytes", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=x-1", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=0-1,5-6", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(parse(Some(value), 3000), wanted, "{value}");
        }
        assert_eq!(parse(None, 3000), Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Unsatisfiable);
        assert_eq!(parse(Some("bytes=-1"), 0), Unsatisfiable);
    }

    #[test]
    fn chunks() {
        assert_eq!(parse_chunk("0-1023"), Some((0, 1023)));
        assert_eq!(parse_chunk("5-5"), Some((5, 5)));
        for bad in [
            "",
            "-",
            "5-",
            "-5",
            "5-4",
            "bytes 0-5/6",
            "0-5/6",
            "+1-2",
            "0 - 5",
            "0-5\t",
            "0-18446744073709551615",
        ] {
            assert_eq!(parse_chunk(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn chunks_are_in_order(text in "[0-9]{0,22}-[0-9]{0,22}|[ -~]{0,30}") {
            if let Some((first, last)) = parse_chunk(&text) {
                prop_assert!(first <= last && last < u64::MAX);
            }
        }

        #[test]
        fn a_part_lies_in_the_blob(value in "bytes=[0-9]{0,21}-[0-9]{0,21}|\\PC{0,30}", size in 0u64..) {
            if let Part { start, end } = parse(Some(&value), size) {
                prop_assert!(start < end && end <= size);
            }
        }
    }
}
