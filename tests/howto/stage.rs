//! Where a page is carried out: the machines that it names as directories, an upstream in place of the internet, and
//! programs that stand in for those that need a cluster.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{
    output,
    page::{self, Page, Part},
};
use crate::support::{
    containerd::Containerd,
    daemon::{Daemon, loopback_address},
    site::dray,
};

/// Where the registry of the site listens, and what nodes call it, on every page.
const LISTEN: &str = "0.0.0.0:5000";
const REGISTRY: &str = "registry.site.local:5000";
const REGISTRY_HOST: &str = "registry.site.local";

/// What a page says in a comment when a registry has been running at the site for long.
const SERVES: &str = "the registry serves";

/// Answers from files for a cluster that the tests do not have.
const KUBECTL: &str = r#"#!/bin/sh
case "$*" in
  *"get nodes -o json") cat "$CLUSTER/nodes.json" ;;
  *"get clusterconfig k0s -o json") cat "$CLUSTER/config.json" ;;
  *"get configmap kubeadm-config -o yaml") cat "$CLUSTER/config.json" ;;
  *"patch clusterconfig k0s --type merge --patch-file "*)
    for last; do :; done
    cp "$last" "$CLUSTER/patch.json" && echo "clusterconfig.k0s.k0sproject.io/k0s patched" ;;
  "apply -f -"|"delete -f -")
    done=created; [ "$1" = delete ] && done=deleted
    awk -v done=$done '/^apiVersion: /{split($2, group, "/")} /^kind: /{kind = tolower($2)}
      /^  name: /{print kind "." group[1] "/" $2 " " done}' ;;
  *) echo "kubectl: nobody expected $*" >&2; exit 1 ;;
esac
"#;

pub(crate) struct Stage {
    dir: TempDir,
    /// What stands for what: as a page writes it, and as it is here. The longest first.
    words: Vec<(String, String)>,
    upstream: String,
    port: u16,
    /// Keeps the port until the registry of the site takes it.
    held: Option<TcpListener>,
    code: i32,
    containerd: Option<Containerd>,
    // Stopped when the page is done.
    servers: Vec<Daemon>,
}

impl Stage {
    /// An empty stage, on which the connected machine reads from `hosts` by way of the server at `upstream`.
    pub(crate) fn new(upstream: &str, hosts: &[&str], file_hosts: &[&str]) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_dray"), path("bin/dray")).unwrap();
        let images = hosts.iter().map(|host| format!("{host}=http://{upstream}/{host}"));
        let files = file_hosts.iter().map(|host| format!("{host}=http://{upstream}/files/{host}"));
        // Pages name the port of the registry before it is started.
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let mut stage = Self {
            upstream: images.chain(files).collect::<Vec<_>>().join(","),
            words: vec![
                ("/media/usb".into(), path("usb")),
                ("/var/lib/dray".into(), path("store")),
                ("/etc/dray".into(), path("etc/dray")),
                ("/etc/k0s".into(), path("node/etc/k0s")),
                ("/etc/containerd".into(), path("node/etc/containerd")),
                (REGISTRY.into(), format!("localhost:{port}")),
                (LISTEN.into(), format!("127.0.0.1:{port}")),
                (REGISTRY_HOST.into(), "localhost".into()),
            ],
            port,
            held: Some(held),
            code: 0,
            containerd: None,
            servers: Vec::new(),
            dir,
        };
        for name in ["usb", "cluster", "etc/dray", "node/etc/k0s", "node/etc/containerd"] {
            fs::create_dir_all(stage.path(name)).unwrap();
        }
        stage.program("kubectl", KUBECTL);
        stage.words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The `--upstream` of the connected machines.
    pub(crate) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Writes what `kubectl` answers with.
    pub(crate) fn cluster(&self, file: &str, content: &str) {
        fs::write(self.path("cluster").join(file), content).unwrap();
    }

    /// Says that `word` of the page stands for `real` here.
    pub(crate) fn word(&mut self, word: &str, real: &str) {
        self.words.push((word.to_owned(), real.to_owned()));
        self.words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    }

    /// Lets the node of the page have a container runtime, as `ctr` and as `k0s ctr`.
    pub(crate) fn with_containerd(&mut self) {
        let containerd = Containerd::start();
        let socket = containerd.socket().display().to_string();
        let ctr = format!("#!/bin/sh\nexec /usr/bin/ctr -a {socket} \"$@\"\n");
        self.program("ctr", &ctr);
        self.program("k0s", "#!/bin/sh\n[ \"$1\" = ctr ] && shift && exec ctr \"$@\"\n");
        self.containerd = Some(containerd);
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Carries the page out. `now` is told of what happened in the world, as the page says in comments.
    #[track_caller]
    pub(crate) fn carry_out(mut self, page: &Page, mut now: impl FnMut(&Self, &str)) {
        let update = std::env::var_os("HOWTO_UPDATE").is_some();
        let (mut changes, mut wrong) = (Vec::new(), String::new());
        for (nth, part) in page.parts.iter().enumerate() {
            match part {
                Part::Now(event) if event == SERVES => drop(self.serve(&self.registry())),
                Part::Now(event) => now(&self, event),
                Part::File { machine, name, content } => {
                    let path = self.machine(machine).join(self.real(name));
                    fs::write(path, self.real(content)).unwrap();
                }
                Part::Command(command) => {
                    let printed = self.run(command);
                    if !output::matches(page.shown(command), &printed) {
                        wrong += &difference(page, command, &printed);
                        changes.push((command, printed.clone()));
                    }
                    let next = page.parts[nth + 1..].iter().find_map(|part| match part {
                        Part::Command(command) => Some(command.text.as_str()),
                        _ => None,
                    });
                    if self.code != 0 && next != Some("echo $?") {
                        let place = page.place(command);
                        panic!("{wrong}{place}: exit code {}\n{}", self.code, printed.join("\n"));
                    }
                }
            }
        }
        if update {
            page.rewrite(&changes);
        } else {
            assert!(wrong.is_empty(), "{wrong}");
        }
    }

    fn machine(&self, name: &str) -> PathBuf {
        let home = self.path(name);
        fs::create_dir_all(&home).unwrap();
        home
    }

    /// Runs a command as a shell on the machine does, and returns the lines that a terminal shows.
    fn run(&mut self, command: &page::Command) -> Vec<String> {
        let text = self.real(&command.text);
        let home = self.machine(&command.machine);
        let mut printed = if let Some(server) = text.strip_suffix(" &") {
            self.code = 0;
            self.serve(&self.shell(&home, &format!("exec {server}")))
        } else {
            let script = format!("exec 2>&1; (exit {}); {text}", self.code);
            let output = self.shell(&home, &script).stdin(Stdio::null()).output().unwrap();
            self.code = output.status.code().unwrap_or(-1);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        self.patch_cluster();
        for (word, real) in &self.words {
            printed = replace(&printed, real, word);
        }
        printed.lines().map(str::to_owned).collect()
    }

    /// Starts the registry of the site, and returns what it says.
    fn serve(&mut self, command: &Command) -> String {
        self.held = None;
        let daemon = Daemon::start(command);
        let address = daemon.wait_for("address", loopback_address);
        assert_eq!(address, format!("127.0.0.1:{}", self.port));
        let said = daemon.log();
        self.servers.push(daemon);
        said
    }

    /// The registry as the first how-to leaves it behind.
    fn registry(&self) -> Command {
        let (store, tls) = (self.path("store"), self.path("etc/dray/tls"));
        let mut serve = dray();
        serve.args(["serve", "--listen", &format!("127.0.0.1:{}", self.port), "--store"]).arg(store);
        serve.arg("--tls-cert").arg(tls.join("server.crt")).arg("--tls-key").arg(tls.join("server.key"));
        serve
    }

    fn shell(&self, home: &Path, script: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", script]).current_dir(home).env_clear();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        shell.env("PATH", path).env("HOME", home).env("NO_COLOR", "1").env("LC_ALL", "C").env("TZ", "UTC");
        shell.env("CLUSTER", self.path("cluster")).env("CONTAINERD_SNAPSHOTTER", "native");
        if !home.ends_with("site") && !home.ends_with("node") {
            shell.env("DRAY_UPSTREAM", &self.upstream);
        }
        shell
    }

    fn real(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, real)| replace(&text, word, real))
    }

    /// Does to the cluster's configuration what `kubectl patch` was asked for.
    fn patch_cluster(&self) {
        let patch = self.path("cluster/patch.json");
        let Ok(bytes) = fs::read(&patch) else { return };
        let config = self.path("cluster/config.json");
        let mut object = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        dray::site::check::apply(&mut object, &serde_json::from_slice(&bytes).unwrap());
        fs::write(config, object.to_string()).unwrap();
        fs::remove_file(patch).unwrap();
    }
}

/// Replaces a word of `text`; `node/etc/k0s` does not have the word `/etc/k0s` in it.
fn replace(text: &str, word: &str, by: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, found) = rest.split_at(at);
        replaced.push_str(before);
        let within = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        replaced.push_str(if within { word } else { by });
        rest = &found[word.len()..];
    }
    replaced + rest
}

fn difference(page: &Page, command: &page::Command, printed: &[String]) -> String {
    let mut text = Vec::new();
    let place = page.place(command);
    writeln!(text, "{place}: $ {}\n--- the page shows\n{}", command.text, page.shown(command).join("\n"))
        .unwrap();
    writeln!(text, "--- it prints\n{}\n", printed.join("\n")).unwrap();
    String::from_utf8(text).unwrap()
}
