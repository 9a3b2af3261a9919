//! podman and skopeo with a `registries.conf` and a storage of their own.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};

use tempfile::TempDir;

/// Clients that find the upstream hosts at the site only.
pub(crate) struct Clients {
    dir: TempDir,
}

impl Clients {
    /// Sends the pulls from `hosts` to the registry at `address`, by path; the upstream itself is out of reach.
    pub(crate) fn new(address: &str, hosts: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut blocks = String::new();
        for host in hosts {
            let _ = write!(
                blocks,
                "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\nblocked = true\n\
                 [[registry.mirror]]\nlocation = \"{address}/{host}\"\ninsecure = true\n\n"
            );
        }
        fs::write(dir.path().join("registries.conf"), blocks).unwrap();
        fs::write(dir.path().join("auth.json"), "{}").unwrap();
        Self { dir }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"));
        command
    }

    pub(crate) fn skopeo(&self) -> Command {
        let mut skopeo = self.command("skopeo");
        skopeo.arg("--registries-conf").arg(self.path("registries.conf"));
        skopeo
    }

    pub(crate) fn podman(&self) -> Command {
        let mut podman = self.command("podman");
        podman
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"));
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
