//! Images built by buildah, without a daemon and without a network, out of files that are on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::command::Run;

/// The family of media types that an image is written with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Oci,
    Docker,
}

/// What an image is for: the fields that end up in its configuration and in the index above it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) os_version: Option<&'static str>,
}

impl Target {
    pub(crate) const fn linux(architecture: &'static str) -> Self {
        Self { os: "linux", architecture, os_version: None }
    }

    pub(crate) const fn windows(os_version: &'static str) -> Self {
        Self { os: "windows", architecture: "amd64", os_version: Some(os_version) }
    }

    fn flags(self) -> Vec<&'static str> {
        let mut flags = vec!["--os", self.os, "--arch", self.architecture];
        flags.extend(self.os_version.into_iter().flat_map(|version| ["--os-version", version]));
        flags
    }

    fn name(self) -> String {
        format!("{}-{}-{}", self.os, self.architecture, self.os_version.unwrap_or("any"))
    }
}

/// buildah with its own storage.
pub(crate) struct Workshop {
    dir: TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn buildah(&self, command: &str) -> Command {
        let mut buildah = Command::new("buildah");
        buildah
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"))
            .arg(command);
        buildah
    }

    /// Builds an image with one layer for each of `layers`, directories that become its root. Returns its name.
    #[track_caller]
    pub(crate) fn image(&self, name: &str, target: Target, format: Format, layers: &[&Path]) -> String {
        let mut base = "scratch".to_owned();
        for (position, layer) in layers.iter().enumerate() {
            let container = self.buildah("from").args(["--pull-never", &base]).succeed().trim().to_owned();
            self.buildah("copy").args(["-q", &container]).arg(layer).arg("/").succeed();
            let mut config = self.buildah("config");
            config.args(target.flags());
            if target.os == "linux" {
                config.args(["--cmd", r#"["/bin/busybox", "sh"]"#]);
            }
            config.arg(&container).succeed();
            base = format!("localhost/{name}-{}-{position}", target.name());
            self.buildah("commit")
                .args(["-q", "--rm", "--timestamp", "0", "--format", format.name(), &container, &base])
                .succeed();
        }
        base
    }

    /// Pushes one image.
    #[track_caller]
    pub(crate) fn push(&self, image: &str, format: Format, destination: &str) {
        self.buildah("push")
            .args(["-q", "--tls-verify=false", "--format", format.name(), image, destination])
            .succeed();
    }

    /// Pushes an index (or a Docker manifest list) over `images`, in this order.
    #[track_caller]
    pub(crate) fn push_index(&self, images: &[(Target, String)], format: Format, destination: &str) {
        let list = format!("list-{}", dray::oci::Digest::sha256(destination.as_bytes()).short());
        self.buildah("manifest").args(["create", &list]).succeed();
        for (target, image) in images {
            self.buildah("manifest").arg("add").args(target.flags()).args([&list, image]).succeed();
        }
        self.buildah("manifest")
            .args([
                "push",
                "-q",
                "--all",
                "--tls-verify=false",
                "--format",
                format.name(),
                &list,
                destination,
            ])
            .succeed();
    }
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        }
    }
}

/// A Linux root with busybox in it.
pub(crate) fn busybox_root(dir: &Path) -> PathBuf {
    let root = dir.join("busybox");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    root
}

/// The shape of a Windows layer: `Files` and `Hives`, with the build in a file so that no two are the same.
pub(crate) fn windows_root(dir: &Path, os_version: &str) -> PathBuf {
    let root = dir.join(os_version);
    fs::create_dir_all(root.join("Files/Windows/System32")).unwrap();
    fs::create_dir_all(root.join("Hives")).unwrap();
    fs::write(root.join("Files/Windows/System32/build.txt"), format!("{os_version}\r\n")).unwrap();
    fs::write(root.join("Hives/Software_Delta"), os_version).unwrap();
    root
}

/// The files of the Debian package that `program` belongs to.
pub(crate) fn package_root(dir: &Path, program: &str) -> PathBuf {
    let owner = Command::new("dpkg").args(["-S", program]).succeed();
    let (package, _) = owner.split_once(": ").unwrap();
    let root = dir.join(package);
    for line in Command::new("dpkg").args(["-L", package]).succeed().lines() {
        let source = Path::new(line);
        let relative = source.strip_prefix("/").unwrap();
        if source.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            let target = root.join(relative);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(source, target).unwrap();
        }
    }
    root
}
