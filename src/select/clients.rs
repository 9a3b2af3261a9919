//! Some of the clients that count for something, in words.

use super::band::{BANDS, Band};
use super::client::ANY;

/// Some of the bands that count for something, in the order of [`bands`](super::bands).
#[derive(Clone, Debug, Default)]
pub struct Clients {
    bands: Vec<&'static Band>,
    all: bool,
}

impl Clients {
    /// Returns the clients of `bands`, which are some or all of those in `scope`.
    pub fn new(bands: &[&'static Band], scope: &[&'static Band]) -> Self {
        let here = |band: &Band| bands.iter().any(|own| std::ptr::eq(*own, band));
        let all = !bands.is_empty() && scope.iter().all(|band| here(band));
        Self { bands: BANDS.iter().filter(|band| here(band)).collect(), all }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bands.is_empty()
    }
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&&Band, &&Band)| std::ptr::eq(*one, *other);
        self.all == other.all
            && self.bands.len() == other.bands.len()
            && self.bands.iter().zip(&other.bands).all(same)
    }
}

impl Eq for Clients {}

/// A list of the labels of the bands.
impl serde::Serialize for Clients {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.bands.iter().map(|band| band.label()))
    }
}

/// `every client in scope`, or the clients with bands that follow each other joined: `containerd 1.7.6-2.2.x`.
impl std::fmt::Display for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.all {
            return f.write_str("every client in scope");
        }
        let here = |band: &Band| self.bands.iter().any(|own| std::ptr::eq(*own, band));
        let runs = BANDS.chunk_by(|a, b| b.follows(a) && here(a) == here(b));
        let runs: Vec<String> = runs.filter(|run| here(&run[0])).map(joined).collect();
        f.write_str(&runs.join(", "))
    }
}

/// Returns the label of bands of one client that follow each other.
fn joined(run: &[Band]) -> String {
    let [first, .., last] = run else { return run.iter().map(Band::label).collect() };
    let ((from, _), (_, to)) = (first.range(), last.range());
    let name = first.client.name();
    let version = |numbers: [u32; 3]| {
        let known = numbers.iter().take_while(|number| **number != ANY);
        let mut text = known.map(ToString::to_string).collect::<Vec<_>>();
        text.extend((text.len() < numbers.len()).then(|| "x".to_owned()));
        text.join(".")
    };
    match (from == [0; 3], to == [ANY; 3]) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{name} <={}", version(to)),
        (false, true) => format!("{name} {} and later", version(from)),
        (false, false) => format!("{name} {}-{}", version(from), version(to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::select::node_bands;

    fn text(runtimes: &[&str], kind: &str) -> String {
        let kind = kind.parse().unwrap();
        let runtimes: Vec<_> = runtimes.iter().map(|text| text.parse().unwrap()).collect();
        Clients::new(&node_bands(&kind, &runtimes), &node_bands(&kind, &[])).to_string()
    }

    #[test]
    fn bands_that_follow_each_other_are_joined() {
        let windows = "windows(10.0.20348)/amd64";
        for (runtimes, expected) in [
            (&["containerd@2.1.6"][..], "containerd 2.1.6-2.2.x"),
            (&["containerd@1.7.6", "containerd@2.1"], "containerd 1.7.6-2.2.x"),
            (&["containerd@1.4", "containerd@1.5"], "containerd <=1.6.17"),
            (&["containerd@2.3", "containerd@main"], "containerd 2.3.0 and later"),
            (&["containerd@1.4", "containerd@2.3"], "containerd <=1.4, containerd 2.3.x"),
            (&["containerd"], "containerd"),
            (&[], "every client in scope"),
        ] {
            assert_eq!(text(runtimes, windows), expected);
        }
        assert_eq!(text(&["containerd@1.5", "containerd@1.6"], "linux/amd64"), "containerd 1.5.0-1.x");
    }
}
