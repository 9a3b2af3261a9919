//! What tags mean, from everything that names them.

use std::collections::BTreeMap;

use super::{Descriptor, Reference, RepositoryName, Tag};

/// The meaning of a tag, with the kind of reference that gave it.
///
/// A reference without a digest (`pause:3.9`) decides what its tag means, and so does a push. A pinned reference
/// (`pause:3.9@sha256:…`) is found by its digest. It gives the tag a meaning only while nothing else does, and while all
/// pinned references to the tag agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagMeaning {
    /// A reference without a digest, or a push, points the tag here.
    Unpinned(Descriptor),
    /// Only pinned references name the tag, and all of them point here.
    Pinned(Descriptor),
    /// Only pinned references name the tag, and they disagree: it means nothing.
    Disputed,
}

impl TagMeaning {
    /// Returns what the tag points at; `None` if it means nothing.
    pub fn target(&self) -> Option<&Descriptor> {
        match self {
            Self::Unpinned(target) | Self::Pinned(target) => Some(target),
            Self::Disputed => None,
        }
    }

    /// Like [`TagMeaning::target`], by value.
    pub fn into_target(self) -> Option<Descriptor> {
        match self {
            Self::Unpinned(target) | Self::Pinned(target) => Some(target),
            Self::Disputed => None,
        }
    }

    /// Returns what a tag with this meaning means after `later` was said about it too.
    ///
    /// The order makes a difference between two references without a digest only: the later one counts.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        match (self, later) {
            (_, later @ Self::Unpinned(_)) => later,
            (earlier @ Self::Unpinned(_), _) => earlier,
            (Self::Pinned(one), Self::Pinned(other)) if one.digest == other.digest => Self::Pinned(one),
            (Self::Pinned(_) | Self::Disputed, Self::Pinned(_) | Self::Disputed) => Self::Disputed,
        }
    }
}

/// The meanings of tags, by repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<RepositoryName, BTreeMap<Tag, TagMeaning>>);

impl Tags {
    /// Adds what was said about a tag after everything that is here.
    pub fn add(&mut self, name: &RepositoryName, tag: &Tag, meaning: TagMeaning) {
        let tags = self.0.entry(name.clone()).or_default();
        let meaning = match tags.remove(tag) {
            Some(earlier) => earlier.then(meaning),
            None => meaning,
        };
        tags.insert(tag.clone(), meaning);
    }

    /// Adds everything that was said in `later` after what is here.
    pub fn add_all(&mut self, later: &Self) {
        for (name, tag, meaning) in later.iter() {
            self.add(name, tag, meaning.clone());
        }
    }

    /// Returns what is known about a tag.
    pub fn get(&self, name: &RepositoryName, tag: &Tag) -> Option<&TagMeaning> {
        self.0.get(name)?.get(tag)
    }

    /// Returns what a tag points at; `None` if it means nothing.
    pub fn target(&self, name: &RepositoryName, tag: &Tag) -> Option<&Descriptor> {
        self.get(name, tag)?.target()
    }

    /// Returns all tags of a repository that mean something, in their order.
    pub fn names(&self, name: &RepositoryName) -> impl Iterator<Item = &Tag> {
        let tags = self.0.get(name).into_iter().flatten();
        tags.filter(|(_, meaning)| meaning.target().is_some()).map(|(tag, _)| tag)
    }

    /// Returns all tags with their meanings, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&RepositoryName, &Tag, &TagMeaning)> {
        self.0.iter().flat_map(|(name, tags)| tags.iter().map(move |(tag, meaning)| (name, tag, meaning)))
    }

    /// Returns the tags that mean nothing because pinned references to them disagree.
    pub fn disputed(&self) -> impl Iterator<Item = Reference> {
        let disputed = self.iter().filter(|(_, _, meaning)| **meaning == TagMeaning::Disputed);
        disputed.map(|(name, tag, _)| Reference::new(name.clone(), Some(tag.clone()), None))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(of: u8) -> Descriptor {
        Descriptor::of("m", &[of])
    }

    fn meaning() -> impl Strategy<Value = TagMeaning> {
        prop_oneof![
            (0..3u8).prop_map(|of| TagMeaning::Unpinned(target(of))),
            (0..3u8).prop_map(|of| TagMeaning::Pinned(target(of))),
            Just(TagMeaning::Disputed),
        ]
    }

    #[test]
    fn a_pin_never_moves_a_tag() {
        let (one, other) = (target(1), target(2));
        let unpinned = TagMeaning::Unpinned(one.clone());
        let pinned = TagMeaning::Pinned(other.clone());
        assert_eq!(unpinned.clone().then(pinned.clone()), unpinned);
        assert_eq!(pinned.clone().then(unpinned.clone()), unpinned);
        assert_eq!(pinned.clone().then(pinned.clone()), pinned);
        assert_eq!(pinned.then(TagMeaning::Pinned(one)), TagMeaning::Disputed);
        assert_eq!(TagMeaning::Disputed.then(unpinned.clone()), unpinned);
        assert_eq!(TagMeaning::Disputed.then(TagMeaning::Pinned(other)), TagMeaning::Disputed);
    }

    proptest! {
        #[test]
        fn order_counts_between_unpinned_references_only(a in meaning(), b in meaning(), c in meaning()) {
            let is_unpinned = |meaning: &TagMeaning| matches!(meaning, TagMeaning::Unpinned(_));
            if !(is_unpinned(&a) && is_unpinned(&b)) {
                prop_assert_eq!(a.clone().then(b.clone()), b.clone().then(a.clone()));
            }
            prop_assert_eq!(a.clone().then(b.clone()).then(c.clone()), a.clone().then(b.clone().then(c)));
            // Saying the same again changes nothing.
            let both = a.then(b.clone());
            prop_assert_eq!(both.clone().then(b), both);
        }
    }
}
