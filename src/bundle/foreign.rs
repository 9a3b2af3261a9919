//! What else a file may be that lies where a repair puts another.

use std::path::Path;

use super::media::Media;
use super::parity::Recovery;
use super::read::Bundle;
use super::volume::{Kind, SetName, Volume};

/// Says what the file at `path` is, if that is something of its own: not what is left of volume `number` of `set`, or of the
/// only file of `set`.
pub(super) fn foreign(path: &Path, set: &SetName, number: Option<u32>) -> Option<String> {
    if Recovery::is_one(path) {
        return Some("a recovery file".to_owned());
    }
    if let Ok(Kind::Volume(volume)) = Volume::read(path) {
        let expected = volume.header().set == *set && Some(volume.number()) == number;
        return (!expected).then(|| volume.to_string());
    }
    let bundle = Bundle::open_damaged(Media::plain(path).ok()?).ok()?;
    let digest = &bundle.index().digest;
    let expected = *digest == set.digest && number.is_none();
    (!expected).then(|| format!("{} {} ({digest})", bundle.lock().name, bundle.lock().sequence))
}
