//! The walk over an index and the indexes within it.

use crate::oci::{Descriptor, Digest, Document, Index, media_type};

/// How deep indexes may be nested in an index. Nobody publishes more than one level.
pub const MAX_DEPTH: usize = 4;
/// How many entries an index may have, together with those of the indexes nested in it.
pub const MAX_ENTRIES: usize = 10_000;

/// Why an index is not walked to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// More entries than any index has.
    #[error("its index has more than {MAX_ENTRIES} entries")]
    Entries,
    /// Indexes within indexes.
    #[error("its indexes are nested more than {MAX_DEPTH} levels deep")]
    Depth,
}

/// An index with the entries of nested indexes in the place of the entry that leads to them, as containerd walks
/// them (containerd v2.1.6 core/images/image.go, `Manifest`).
#[derive(Clone, Debug, Default)]
pub struct Expansion {
    /// The entries, in order: what a [`Band`](super::Band) chooses from.
    pub entries: Vec<Descriptor>,
    /// The nested indexes that lead to each entry, the outermost first.
    pub through: Vec<Vec<Descriptor>>,
}

/// Expands `index`; `read` gives the document with a digest, `None` if it is not there.
///
/// The outer error is that of `read`.
pub fn expand<E>(
    index: &Index,
    mut read: impl FnMut(&Digest) -> Result<Option<Document>, E>,
) -> Result<Result<Expansion, ExpandError>, E> {
    let mut walk = match Walk::over(index) {
        Ok(walk) => walk,
        Err(error) => return Ok(Err(error)),
    };
    while let Some(nested) = walk.nested() {
        let document = read(&nested.descriptor.digest)?;
        if let Err(error) = walk.enter(nested, document.as_ref()) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(walk.finish()))
}

/// A walk over an index in progress, for those that wait for nested indexes; the others use [`expand`].
#[derive(Debug)]
pub struct Walk {
    /// What is still to be looked at, the next one last.
    waiting: Vec<Step>,
    seen: usize,
    found: Expansion,
}

/// An entry with the nested indexes that lead to it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The entry.
    pub descriptor: Descriptor,
    through: Vec<Descriptor>,
}

impl Walk {
    /// Begins a walk over `index`.
    pub fn over(index: &Index) -> Result<Self, ExpandError> {
        let mut walk = Self { waiting: Vec::new(), seen: 0, found: Expansion::default() };
        walk.wait_for(index, &[])?;
        Ok(walk)
    }

    /// Returns the next nested index, which has to be read; `None` at the end of the walk.
    pub fn nested(&mut self) -> Option<Step> {
        while let Some(step) = self.waiting.pop() {
            if media_type::is_index(&step.descriptor.media_type) {
                return Some(step);
            }
            self.take(step);
        }
        None
    }

    /// Continues with the content of a nested index. An index that is not there counts as an entry, so that a client
    /// that wants it finds it missing and the others do not mind.
    pub fn enter(&mut self, step: Step, document: Option<&Document>) -> Result<(), ExpandError> {
        let Some(Document::Index(index)) = document else {
            self.take(step);
            return Ok(());
        };
        let Step { descriptor, mut through } = step;
        through.push(descriptor);
        if through.len() > MAX_DEPTH {
            return Err(ExpandError::Depth);
        }
        self.wait_for(index, &through)
    }

    /// Returns what was found.
    pub fn finish(self) -> Expansion {
        self.found
    }

    fn take(&mut self, step: Step) {
        self.found.entries.push(step.descriptor);
        self.found.through.push(step.through);
    }

    fn wait_for(&mut self, index: &Index, through: &[Descriptor]) -> Result<(), ExpandError> {
        self.seen += index.manifests.len();
        if self.seen > MAX_ENTRIES {
            return Err(ExpandError::Entries);
        }
        let step =
            |descriptor: &Descriptor| Step { descriptor: descriptor.clone(), through: through.to_vec() };
        self.waiting.extend(index.manifests.iter().rev().map(step));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    /// Indexes by their digest.
    #[derive(Default)]
    struct Table(BTreeMap<Digest, Document>);

    impl Table {
        fn index(&mut self, entries: &[Value]) -> Value {
            let text = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
            let bytes = Bytes::from(text.to_string());
            let descriptor = json!(Descriptor::of(media_type::OCI_INDEX, &bytes));
            self.0.insert(Digest::sha256(&bytes), Document::parse(None, bytes).unwrap());
            descriptor
        }

        fn expand(&self, root: &Value) -> Result<Expansion, ExpandError> {
            let digest: Digest = root["digest"].as_str().unwrap().parse().unwrap();
            let Document::Index(index) = &self.0[&digest] else { panic!("{root} is no index") };
            let read = |digest: &Digest| Ok::<_, std::convert::Infallible>(self.0.get(digest).cloned());
            expand(index, read).unwrap()
        }
    }

    fn image(name: &str) -> Value {
        json!(Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes()))
    }

    fn digests(values: &[Value]) -> Vec<String> {
        values.iter().map(|value| value["digest"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn nested_entries_stand_where_their_index_stood() {
        let mut table = Table::default();
        let inner = table.index(&[image("b"), image("c")]);
        let absent = json!(Descriptor::of(media_type::OCI_INDEX, b"absent"));
        let root = table.index(&[image("a"), inner.clone(), absent.clone(), image("d")]);
        let found = table.expand(&root).unwrap();
        let entries: Vec<String> = found.entries.iter().map(|entry| entry.digest.to_string()).collect();
        assert_eq!(entries, digests(&[image("a"), image("b"), image("c"), absent, image("d")]));
        let through: Vec<usize> = found.through.iter().map(Vec::len).collect();
        assert_eq!(through, [0, 1, 1, 0, 0]);
        assert_eq!(found.through[1][0].digest.to_string(), inner["digest"].as_str().unwrap());
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        let mut table = Table::default();
        let most = table.index(&vec![image("a"); MAX_ENTRIES]);
        assert_eq!(table.expand(&most).unwrap().entries.len(), MAX_ENTRIES);
        let more = table.index(&vec![image("a"); MAX_ENTRIES + 1]);
        assert_eq!(table.expand(&more).unwrap_err(), ExpandError::Entries);
        // The entries of nested indexes count too, also where one index is named many times and is empty.
        let half = table.index(&vec![image("a"); MAX_ENTRIES / 2]);
        let root = table.index(&[half.clone(), half]);
        assert_eq!(table.expand(&root).unwrap_err(), ExpandError::Entries);
        let empty = table.index(&[]);
        let many = table.index(&vec![empty; 200]);
        let root = table.index(&vec![many; 200]);
        assert_eq!(table.expand(&root).unwrap_err(), ExpandError::Entries);
    }

    #[test]
    fn deeper_than_the_limit_is_an_error() {
        let mut table = Table::default();
        let mut root = table.index(&[image("a")]);
        for depth in 1..=MAX_DEPTH {
            root = table.index(&[root]);
            assert_eq!(table.expand(&root).unwrap().entries.len(), 1, "{depth}");
        }
        root = table.index(&[root]);
        assert_eq!(table.expand(&root).unwrap_err(), ExpandError::Depth);
    }
}
