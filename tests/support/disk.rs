//! A small disk, to see what happens when it is full.

use std::{fs, io::Write, path::PathBuf, process::Command};

use super::command::Run;

/// A file system of its own below a test's directory.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes a folder at `path` that holds `size` (`10m`) and no more. Needs root.
    #[track_caller]
    pub(crate) fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir(&path).unwrap();
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "dray"])
            .arg(&path)
            .succeed();
        Self(path)
    }

    /// Gives it another size.
    #[track_caller]
    pub(crate) fn grow(&self, size: &str) {
        self.remount(&format!("size={size}"));
    }

    /// Lets nobody write to it any more.
    #[track_caller]
    pub(crate) fn make_read_only(&self) {
        self.remount("ro");
    }

    /// Lets everybody write to it again.
    #[track_caller]
    pub(crate) fn make_writable(&self) {
        self.remount("rw");
    }

    #[track_caller]
    fn remount(&self, option: &str) {
        Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).succeed();
    }

    /// Writes a file that takes all the space that is left.
    #[track_caller]
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.path("filling")).unwrap();
        // Smaller and smaller pieces, so that not even a page is left.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).finish();
    }
}
