//! dray itself: its command line, and a site with keys, a definition and the files that travel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{
    command::Run,
    daemon::{Daemon, loopback_address},
    upstream,
};

/// The command under test, with nothing of the environment that could change what it does.
pub(crate) fn dray() -> Command {
    let mut dray = Command::new(env!("CARGO_BIN_EXE_dray"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("DRAY_") || name.to_ascii_uppercase().ends_with("_PROXY") {
            dray.env_remove(&*name);
        }
    }
    dray.env_remove("REGISTRY_AUTH_FILE").env_remove("SOURCE_DATE_EPOCH").env("NO_COLOR", "1");
    // Credentials of whoever runs the tests have no part in them.
    dray.env("HOME", "/nonexistent").env("DOCKER_CONFIG", "/nonexistent").env_remove("XDG_RUNTIME_DIR");
    dray
}

/// A directory with a definition, a key pair, and names for what is made from them.
pub(crate) struct Site {
    dir: TempDir,
}

impl Site {
    /// Writes `definition` and makes the keys.
    #[track_caller]
    pub(crate) fn new(definition: &str) -> Self {
        // Beside the build, where there is room for gigabytes; the system's directory is often in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::write(dir.path().join("bundle.yaml"), definition).unwrap();
        dray().args(["keygen", "-o"]).arg(dir.path().join("plant")).succeed();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `dray lock` of the definition against the upstream at `address`.
    pub(crate) fn lock(&self, address: &str) -> Command {
        let mut lock = dray();
        lock.args(["lock", "-f"]).arg(self.path("bundle.yaml")).arg("-o").arg(self.path("bundle.lock"));
        lock.args(upstream::flags(address));
        lock
    }

    /// `dray build` of the lock, signed, into `bundle`.
    pub(crate) fn build(&self, address: &str, bundle: &Path) -> Command {
        let mut build = dray();
        build.args(["build", "--lock"]).arg(self.path("bundle.lock")).arg("-o").arg(bundle);
        build.arg("--key").arg(self.path("plant.key")).args(upstream::flags(address));
        build
    }

    pub(crate) fn verify(&self, bundle: &Path) -> Command {
        let mut verify = dray();
        verify.arg("verify").arg(bundle).arg("--trust").arg(self.path("plant.pub"));
        verify
    }

    pub(crate) fn import(&self, bundle: &Path, store: &Path) -> Command {
        let mut import = dray();
        import.arg("import").arg(bundle).arg("--store").arg(store).arg("--trust").arg(self.path("plant.pub"));
        import
    }

    /// Locks and builds against the upstream at `address`; returns the bundle.
    #[track_caller]
    pub(crate) fn bundle(&self, address: &str) -> PathBuf {
        let bundle = self.path("bundle.tar");
        self.lock(address).succeed();
        self.build(address, &bundle).succeed();
        bundle
    }
}

/// A running `dray serve`.
pub(crate) struct Serve {
    _daemon: Daemon,
    address: String,
}

impl Serve {
    /// `dray serve` with these arguments, on a free port.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let daemon = Daemon::start(dray().arg("serve").args(arguments).args(["--listen", "127.0.0.1:0"]));
        let address = daemon.wait_for("address", loopback_address);
        Self { _daemon: daemon, address }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What skopeo calls an image here.
    pub(crate) fn docker(&self, reference: &str) -> String {
        format!("docker://{}/{reference}", self.address)
    }
}

/// Every file in the folder `dir` and below, but locks, which say who was there.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with("lock") {
                files.push(path);
            }
        }
    }
    files
}
