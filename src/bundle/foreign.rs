//! What else a file may be that lies where a repair puts another.

use std::path::Path;

use super::media::Media;
use super::parity::Recovery;
use super::read::Bundle;
use super::volume::{Kind, SetName, Volume};

/// What a file of a bundle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the only one.
    Bundle,
    /// It is the volume of this number.
    Volume(u32),
    /// It is the recovery file of this number.
    Recovery(u32),
}

/// Says what the file at `path` is, if that is something of its own: not what is left of the file of `set` that is for
/// `role`.
pub(super) fn foreign(path: &Path, set: &SetName, role: Role) -> Option<String> {
    // One that is damaged at its begin is known by its end.
    if let Ok(Some(recovery)) = Recovery::open_by_content(path) {
        let ours = recovery.header.layout.set == *set && Role::Recovery(recovery.number()) == role;
        return (!ours).then(|| recovery.to_string());
    }
    if Recovery::is_one(path) {
        // Of which bundle nobody can tell any more.
        return (!matches!(role, Role::Recovery(_))).then(|| "a recovery file".to_owned());
    }
    if let Ok(Kind::Volume(volume)) = Volume::read(path) {
        let expected = volume.header().set == *set && Role::Volume(volume.number()) == role;
        return (!expected).then(|| volume.to_string());
    }
    let bundle = Bundle::open_damaged(Media::plain(path).ok()?).ok()?;
    let digest = &bundle.index().digest;
    let expected = *digest == set.digest && role == Role::Bundle;
    (!expected).then(|| format!("{} {} ({digest})", bundle.lock().name, bundle.lock().sequence))
}
