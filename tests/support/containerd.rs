//! A containerd of its own: root, state and socket in a temporary directory, no system service.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use tempfile::TempDir;

use super::{command::Run, daemon::Daemon};

/// A running containerd with a mirror configuration.
pub(crate) struct Containerd {
    // Stopped before its directory goes.
    _daemon: Daemon,
    dir: TempDir,
}

impl Containerd {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::configured(|_| "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n".to_owned())
    }

    /// One that takes orders from a kubelet as well.
    #[track_caller]
    pub(crate) fn with_cri() -> Self {
        Self::configured(|path| {
            let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
            format!(
                "[{cri}.containerd]\nsnapshotter = \"native\"\n\
                 [{cri}.registry]\nconfig_path = \"{path}/hosts\"\n\
                 [{cri}]\nstream_server_port = \"0\"\n",
                path = path.display()
            )
        })
    }

    #[track_caller]
    fn configured(plugins: impl Fn(&Path) -> String) -> Self {
        // The path of a socket is short by law (108 bytes), so not below the target directory.
        let dir = tempfile::Builder::new().prefix("ctd").tempdir_in("/tmp").unwrap();
        let path = dir.path().display();
        let settings = format!(
            "version = 2\n\
             root = \"{path}/root\"\n\
             state = \"{path}/state\"\n\
             {}\
             [grpc]\n\
             address = \"{path}/sock\"\n",
            plugins(dir.path())
        );
        fs::write(dir.path().join("config.toml"), settings).unwrap();
        fs::create_dir(dir.path().join("hosts")).unwrap();
        let daemon = Daemon::start(Command::new("containerd").arg("-c").arg(dir.path().join("config.toml")));
        daemon.wait_for("socket", |line| line.contains("containerd successfully booted").then_some(()));
        let containerd = Self { _daemon: daemon, dir };
        for _ in 0..100 {
            if containerd.ctr().arg("version").finish().code == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("sock")
    }

    /// The directory that `config_path` names on a node: a `hosts.toml` per upstream.
    pub(crate) fn hosts(&self) -> std::path::PathBuf {
        self.dir.path().join("hosts")
    }

    /// Sends the pulls from `host` to `url` and nowhere else, by path: `http://127.0.0.1:5000/v2/registry.k8s.io`.
    pub(crate) fn mirror_by_path(&self, host: &str, url: &str) {
        let text = format!(
            "server = \"{url}\"\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n\n[host]\n"
        );
        write_hosts(&self.hosts().join(host), &text);
    }

    /// Sends all pulls to `url` and nowhere else, with the upstream's name in `?ns=`.
    pub(crate) fn mirror_everything(&self, url: &str) {
        let text = format!("server = \"{url}\"\ncapabilities = [\"pull\", \"resolve\"]\n\n[host]\n");
        write_hosts(&self.hosts().join("_default"), &text);
    }

    /// The client, in the namespace of Kubernetes.
    pub(crate) fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("-a").arg(self.socket()).args(["-n", "k8s.io"]);
        ctr
    }

    /// Pulls as a node of `platform` does, through the mirrors.
    #[track_caller]
    pub(crate) fn pull(&self, platform: &str, reference: &str) {
        self.ctr()
            .args(["images", "pull", "--snapshotter", "native", "--platform", platform, "--hosts-dir"])
            .arg(self.hosts())
            .arg(reference)
            .succeed();
    }

    /// Pulls as a kubelet has it done: `PullImage` of the Container Runtime Interface, gRPC over the socket. The request is a
    /// message with the image's name in field 1 of field 1.
    #[track_caller]
    pub(crate) fn pull_as_kubelet(&self, reference: &str) {
        let field = |content: &[u8]| [&[0x0a, u8::try_from(content.len()).unwrap()], content].concat();
        let message = field(&field(reference.as_bytes()));
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let (request, answer) = (self.dir.path().join("request"), self.dir.path().join("answer"));
        fs::write(&request, [&[0], &length[..], &message].concat()).unwrap();
        let said = Command::new("curl")
            .args(["-sS", "--http2-prior-knowledge", "--max-time", "60", "-D", "-", "--unix-socket"])
            .arg(self.dir.path().join("sock"))
            .args(["-H", "Content-Type: application/grpc", "-H", "TE: trailers", "--data-binary"])
            .arg(format!("@{}", request.display()))
            .arg("-o")
            .arg(answer)
            .arg("http://localhost/runtime.v1.ImageService/PullImage")
            .succeed();
        assert!(said.contains("grpc-status: 0"), "{reference}: {said}");
    }

    /// Runs a container from a pulled image and returns what it wrote.
    #[track_caller]
    pub(crate) fn run(&self, reference: &str, command: &[&str]) -> String {
        // With its own address as the name, a container of a concurrent test is never mistaken for this one.
        let name = format!("dray-{}", std::process::id());
        self.ctr().args(["run", "--rm", "--snapshotter", "native", reference, &name]).args(command).succeed()
    }

    /// The digest that an image name stands for here.
    #[track_caller]
    pub(crate) fn digest(&self, reference: &str) -> Option<String> {
        let table = self.ctr().args(["images", "list"]).succeed();
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(reference))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// Every digest in the content store.
    #[track_caller]
    pub(crate) fn content(&self) -> Vec<String> {
        self.ctr().args(["content", "list", "-q"]).succeed().lines().map(str::to_owned).collect()
    }
}

fn write_hosts(dir: &Path, text: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("hosts.toml"), text).unwrap();
}
