//! Debian's `docker-registry`: the upstream that images are fetched from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    command::Run,
    daemon::{Daemon, loopback_address},
};

/// What a registry lets its clients do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access<'a> {
    /// Pull, push and delete.
    Full,
    /// Pull only.
    ReadOnly,
    /// Pull only, with a user name and a password.
    Password(&'a str, &'a str),
    /// Pull only, from another registry, of which it keeps copies.
    CacheOf(&'a str),
}

/// A running registry.
pub(crate) struct Registry {
    daemon: Daemon,
    address: String,
    // Holds the configuration for as long as the server runs.
    _settings: tempfile::TempDir,
}

impl Registry {
    /// Serves what `data` holds, which may be nothing yet.
    #[track_caller]
    pub(crate) fn start(data: &Path, access: Access<'_>) -> Self {
        let settings = tempfile::tempdir().unwrap();
        let file = write_settings(settings.path(), data, access);
        let daemon = Daemon::start(Command::new("docker-registry").arg("serve").arg(file));
        let address = daemon
            .wait_for("address", |line| line.contains("listening on").then(|| loopback_address(line))?);
        Self { daemon, address, _settings: settings }
    }

    /// Where it listens: `127.0.0.1:40123`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What skopeo calls `reference` here. The registry holds each image under its whole name, host included.
    pub(crate) fn docker(&self, reference: &str) -> String {
        format!("docker://{}/{reference}", self.address)
    }

    /// The bytes of the manifest or index that `reference` names.
    #[track_caller]
    pub(crate) fn raw(&self, reference: &str) -> String {
        Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false", &self.docker(reference)])
            .succeed()
    }

    /// Takes a manifest away, as a cleaned-up upstream does: an index that names it becomes sparse.
    #[track_caller]
    pub(crate) fn delete(&self, reference: &str) {
        Command::new("skopeo").args(["delete", "--tls-verify=false", &self.docker(reference)]).succeed();
    }

    /// The process id of the server.
    pub(crate) fn id(&self) -> u32 {
        self.daemon.id()
    }
}

fn write_settings(dir: &Path, data: &Path, access: Access<'_>) -> PathBuf {
    let maintenance = match access {
        Access::Full | Access::CacheOf(_) => "",
        Access::ReadOnly | Access::Password(..) => "  maintenance: {readonly: {enabled: true}}\n",
    };
    let proxy = match access {
        Access::CacheOf(url) => format!("proxy: {{remoteurl: {url}}}\n"),
        Access::Full | Access::ReadOnly | Access::Password(..) => String::new(),
    };
    let auth = match access {
        Access::Full | Access::ReadOnly | Access::CacheOf(_) => String::new(),
        Access::Password(user, password) => {
            let users = dir.join("users");
            let lines = Command::new("htpasswd").args(["-nbB", user, password]).succeed();
            fs::write(&users, lines).unwrap();
            format!("auth: {{htpasswd: {{realm: upstream, path: {}}}}}\n", users.display())
        }
    };
    let file = dir.join("registry.yml");
    let text = format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: true}}}}\n\
         http: {{addr: 127.0.0.1:0}}\n\
         storage:\n  \
           filesystem: {{rootdirectory: {}}}\n  \
           delete: {{enabled: true}}\n\
         {maintenance}{auth}{proxy}",
        data.display()
    );
    fs::write(&file, text).unwrap();
    file
}
