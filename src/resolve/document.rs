//! The form of a definition in YAML, before its values are checked.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{BundleName, ChildMetadata, Programs};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) name: BundleName,
    #[serde(default = "first")]
    pub(super) sequence: u64,
    pub(super) expires: Option<String>,
}

fn first() -> u64 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) nodes: List<String>,
    #[serde(default)]
    pub(super) runtimes: List<String>,
    #[serde(default)]
    pub(super) releases: List<ReleaseEntry>,
    pub(super) image_nodes: Option<List<String>>,
    #[serde(default)]
    pub(super) images: List<Entry<Ref>>,
    #[serde(default)]
    pub(super) image_lists: List<Entry<File>>,
    #[serde(default)]
    pub(super) files: List<FileEntry>,
    #[serde(default)]
    pub(super) charts: List<String>,
    #[serde(default)]
    pub(super) evidence: bool,
    pub(super) child_metadata: Option<ChildMetadata>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseEntry {
    pub(super) k0s: Option<String>,
    pub(super) kubeadm: Option<String>,
    pub(super) k3s: Option<String>,
    pub(super) rke2: Option<String>,
    pub(super) openkruise: Option<String>,
    #[serde(default)]
    pub(super) with: List<String>,
    #[serde(default, deserialize_with = "programs")]
    pub(super) programs: Option<Programs>,
}

/// Reads `programs`, which is text; but what is given may as well be `true`.
fn programs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Programs>, D::Error> {
    struct ProgramsVisitor;

    impl Visitor<'_> for ProgramsVisitor {
        type Value = Option<Programs>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`elsewhere`")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Option<Programs>, E> {
            Ok(None)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<Programs>, E> {
            Programs::deserialize(text.into_deserializer()).map(Some)
        }
    }

    deserializer.deserialize_any(ProgramsVisitor)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) url: url::Url,
    pub(super) sha256: Option<String>,
    pub(super) sha512: Option<String>,
}

/// A list. One value that stands alone is a list of one, and a field that is left open is an empty list.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<List<T>, E> {
                Ok(List::default())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<List<T>, E> {
                T::deserialize(text.into_deserializer()).map(|one| List(vec![one]))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<List<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| List(vec![one]))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, sequence: S) -> Result<List<T>, S::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(sequence)).map(List)
            }
        }

        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

/// The field that says what is carried of children that no node kind fetches.
const CHILD_METADATA: &str = "childMetadata";

/// What an entry with nodes is about.
pub(super) trait Subject {
    /// The field that names it.
    const FIELD: &'static str;
    /// All fields of the entry.
    const FIELDS: &'static [&'static str];
    /// The other fields.
    const OTHERS: &'static str;
}

/// An image.
pub(super) enum Ref {}

impl Subject for Ref {
    const FIELD: &'static str = "ref";
    const FIELDS: &'static [&'static str] = &["ref", "nodes", CHILD_METADATA];
    const OTHERS: &'static str = "`nodes` and `childMetadata`";
}

/// A file with a list of images.
pub(super) enum File {}

impl Subject for File {
    const FIELD: &'static str = "file";
    const FIELDS: &'static [&'static str] = &["file", "nodes"];
    const OTHERS: &'static str = "`nodes`";
}

/// `docker.io/library/nginx:1.27`, or the same with the nodes that need it.
pub(super) struct Entry<S> {
    pub(super) subject: String,
    pub(super) nodes: Option<List<String>>,
    /// What is carried of children that no node kind fetches, if it is an image.
    pub(super) child_metadata: Option<ChildMetadata>,
    of: PhantomData<S>,
}

impl<'de, S: Subject> Deserialize<'de> for Entry<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor<S>(PhantomData<S>);

        impl<'de, S: Subject> Visitor<'de> for EntryVisitor<S> {
            type Value = Entry<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "text, or `{}` with {}", S::FIELD, S::OTHERS)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Entry<S>, E> {
                Ok(Entry { subject: text.to_owned(), nodes: None, child_metadata: None, of: PhantomData })
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entry<S>, M::Error> {
                let (mut subject, mut nodes, mut child_metadata) = (None, None, None);
                while let Some(key) = map.next_key::<String>()? {
                    if key == S::FIELD {
                        subject = Some(map.next_value()?);
                    } else if key == "nodes" {
                        nodes = map.next_value()?;
                    } else if key == CHILD_METADATA && S::FIELDS.contains(&CHILD_METADATA) {
                        child_metadata = map.next_value()?;
                    } else {
                        return Err(M::Error::unknown_field(&key, S::FIELDS));
                    }
                }
                let subject = subject.ok_or_else(|| M::Error::missing_field(S::FIELD))?;
                Ok(Entry { subject, nodes, child_metadata, of: PhantomData })
            }
        }

        deserializer.deserialize_any(EntryVisitor(PhantomData))
    }
}
