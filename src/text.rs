//! Words that several parts of the program put together in the same way.

use std::fmt::Display;

/// Returns the first `most` of `items`, separated by commas, and how many more there are: `a, b and 3 more`.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    joined(items, ", ", " and ", most)
}

/// Returns the first `most` of `items`, which are clauses, separated by semicolons: `a; b; and 3 more`.
pub fn clauses<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    joined(items, "; ", "; and ", most)
}

/// Returns how many there are of a thing, as a person says it: `1 image`, `2 images`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, thing: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

fn joined<T: Display>(
    items: impl IntoIterator<Item = T>,
    separator: &str,
    before_rest: &str,
    most: usize,
) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(separator),
        more => format!("{}{before_rest}{more} more", shown.join(separator)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_names_the_first_and_counts_the_rest() {
        assert_eq!(list(["a", "b"], 2), "a, b");
        assert_eq!(list(["a", "b", "c"], 2), "a, b and 1 more");
        assert_eq!(list(Vec::<u8>::new(), 2), "");
        assert_eq!(clauses([1, 2, 3, 4], 2), "1; 2; and 2 more");
    }
}
