//! What an unquoted word means in YAML.
//!
//! Kubernetes' programs read YAML 1.1 (sigs.k8s.io/yaml v1.4, goyaml.v2 `resolve.go`), where `on` and `yes` are booleans;
//! most editors and other parsers read YAML 1.2, where they are text. What they do not agree on is never taken for text.

use super::node::Value;

/// No longer word is taken for a number: a digest may happen to have no letters.
const MAX_NUMBER: usize = 40;

/// Returns what the unquoted `word` means.
pub(super) fn plain(word: &str) -> Value {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Value::Bool(true, word.to_owned())
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Value::Bool(false, word.to_owned())
        }
        _ if is_number(word) => Value::Number(word.to_owned()),
        _ => Value::Text(word.to_owned()),
    }
}

/// Whether `word` is a number in YAML 1.1 or 1.2.
fn is_number(word: &str) -> bool {
    if word.len() > MAX_NUMBER {
        return false;
    }
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if integer(unsigned).is_some() || matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    if matches!(word, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    starts && without_underscores(unsigned).parse::<f64>().is_ok()
}

/// Returns the value of a whole number without a sign.
fn integer(digits: &str) -> Option<u128> {
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('_') {
        return None;
    }
    let digits = without_underscores(digits);
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x', ..] => (&digits[2..], 16),
        [b'0', b'o', ..] => (&digits[2..], 8),
        [b'0', b'b', ..] => (&digits[2..], 2),
        _ => (&digits[..], 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    // A number of any length is a number, even if no field takes one that large.
    if radix == 10 && !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(digits.parse().unwrap_or(u128::MAX));
    }
    u128::from_str_radix(digits, radix).ok()
}

fn without_underscores(number: &str) -> String {
    number.replace('_', "")
}

/// Returns the whole number that `written` is, if it is one.
pub(super) fn whole(written: &str) -> Option<i128> {
    let value = |digits| i128::try_from(integer(digits)?).ok();
    match written.strip_prefix('-') {
        Some(digits) => value(digits).map(|value| -value),
        None => value(written.strip_prefix('+').unwrap_or(written)),
    }
}

/// Returns the number that `written` is, with fractions.
pub(super) fn fractional(written: &str) -> Option<f64> {
    without_underscores(written).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_kubernetes_reads() {
        for number in [
            "1",
            "-1",
            "3.10",
            "1e3",
            "007",
            "0x1f",
            "1_000",
            ".5",
            "+2",
            ".inf",
            "1.",
            "9".repeat(40).as_str(),
        ] {
            assert!(matches!(plain(number), Value::Number(_)), "{number}");
        }
        for text in [
            "v1",
            "1.2.3",
            "2027-01-31",
            "1.36.3+k0s.2",
            "e3b0",
            "-",
            "0xzz",
            "inf",
            "nan",
            "y",
            "1-2",
            "_1",
            "9".repeat(64).as_str(),
        ] {
            assert!(matches!(plain(text), Value::Text(_)), "{text}");
        }
        assert_eq!(plain("on"), Value::Bool(true, "on".into()));
        assert_eq!(plain("No"), Value::Bool(false, "No".into()));
        assert_eq!(plain(""), Value::Null);
        assert_eq!(whole("-0x10"), Some(-16));
        assert_eq!(whole("1_000"), Some(1000));
        assert_eq!(whole("1.5"), None);
    }
}
