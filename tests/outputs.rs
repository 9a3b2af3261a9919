//! Every command that writes, with every kind of output: what can be written is written, and nothing else is touched.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

#[path = "outputs/args.rs"]
mod args;
mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use args::{OUTPUTS, Way};
use support::{
    command::{Finished, Run},
    disk::SmallDisk,
    shelf,
    site::{Serve, Site, dray},
};

const USAGE: i32 = 2;
const FAILED: i32 = 1;
const PAUSE: &str = "registry.k8s.io/pause:3.9";
/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";
const CATALOG: &str = "\
distribution: k0s
kubernetes: '1.36'
architectures: [amd64]
facts: {containerd: 2.3.1, import-sparse: true}
components:
  - {name: pause, image: registry.k8s.io/pause, tag: '3.9', os: [linux]}
releases: [{version: v1.36.99+k0s.0}]
";

/// What all commands need.
struct World {
    site: Site,
    upstream: Serve,
}

impl World {
    fn new() -> Self {
        let definition = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: plant-7}\nspec:\n  \
                          nodes: [linux/amd64]\n  runtimes: [containerd@2]\n  \
                          images: ['registry.k8s.io/pause:3.9']\n  imageLists: [list.txt]\n";
        let site = Site::new(definition);
        // Enough for several volumes.
        let listed: Vec<String> = (0..16).map(|nth| format!("registry.k8s.io/part-{nth:02}:1")).collect();
        fs::write(site.path("list.txt"), listed.join("\n")).unwrap();
        let upstream = shelf::serve(&site.path("upstream"), listed.iter().chain([&PAUSE.to_owned()]));
        let world = Self { site, upstream };
        let bundle = world.site.bundle(world.upstream.address());
        world.site.import(&bundle, &world.path("store")).succeed();
        let mut bytes = fs::read(&bundle).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 512].fill(0xaa);
        fs::write(world.path("damaged.tar"), bytes).unwrap();
        fs::create_dir_all(world.path("catalog/k0s")).unwrap();
        fs::write(world.path("catalog/k0s/1.36.yaml"), CATALOG).unwrap();
        for name in ["incident-config.yaml", "incident-nodes.json"] {
            fs::copy(Path::new("tests/fixtures/check").join(name), world.path(name)).unwrap();
        }
        let mut build = world.site.build(world.upstream.address(), &world.path("plant.tar"));
        build.args(["--volume-size", "260kB", "--parity", "50%"]).succeed();
        dray()
            .args(["inventory", "--store"])
            .arg(world.path("store"))
            .arg("-o")
            .arg(world.path("site.inv"))
            .succeed();
        // What is built next is newer than what the store has.
        fs::write(
            world.path("bundle.yaml"),
            definition.replace("{name: plant-7}", "{name: plant-7, sequence: 2}"),
        )
        .unwrap();
        fs::rename(world.path("bundle.lock"), world.path("first.lock")).unwrap();
        world.site.lock(world.upstream.address()).succeed();
        fs::rename(world.path("bundle.lock"), world.path("next.lock")).unwrap();
        fs::rename(world.path("first.lock"), world.path("bundle.lock")).unwrap();
        // What has just been made is to be found again, not made again.
        fs::create_dir(world.path("out")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.site.path(name)
    }

    /// The command that has `output` as this flag, in the directory of the site.
    fn command(&self, command: &str, flag: &str, output: &str) -> Command {
        self.command_with(command, flag, output, self.upstream.address())
    }

    /// The same with another upstream.
    fn command_with(&self, command: &str, flag: &str, output: &str, upstream: &str) -> Command {
        let line = match (command, flag) {
            ("build", "output") => "build --lock next.lock --key plant.key --since site.inv -o",
            ("check", "patch") => {
                "check --to k0s@v1.30.3+k0s.0 --cluster-config incident-config.yaml --nodes incident-nodes.json \
                 --store store --patch"
            }
            ("export", "output") => {
                "export --release k0s@v1.36.99+k0s.0 --node linux/amd64 --catalog catalog --store store -o"
            }
            ("import", "output") => {
                "import damaged.tar --keep-going --store imported --trust plant.pub --receipt-key plant.key -o"
            }
            ("import", "receipt") => "import bundle.tar --store store --trust plant.pub --receipt",
            ("inventory", "output") => "inventory --store store --key plant.key -o",
            ("keygen", "output") => "keygen -o",
            ("lock", "output") => "lock -f bundle.yaml -o",
            ("node-config", "output") => "node-config containerd --registry https://registry.site:5000 -o",
            ("sign", "payload_out") => "sign bundle.tar --payload-out",
            ("sign", "statement_out") => "sign bundle.tar --payload-out /dev/null --statement-out",
            ("tls init", "output") => "tls init --san registry.site -o",
            other => panic!("say how {other:?} is run"),
        };
        let mut dray = dray();
        dray.current_dir(self.path("")).stdin(Stdio::null()).args(line.split_whitespace()).arg(output);
        if matches!(command, "lock" | "build") {
            dray.args(support::upstream::flags(upstream));
        }
        dray
    }

    /// The files that the command reads.
    fn inputs(command: &str, flag: &str) -> &'static [&'static str] {
        match (command, flag) {
            ("build", "output") => &["next.lock", "plant.key", "site.inv"],
            ("check", "patch") => &["incident-config.yaml", "incident-nodes.json"],
            ("export", "output") => &["catalog/k0s/1.36.yaml"],
            ("import", "output") => &["damaged.tar", "plant.pub", "plant.key"],
            ("inventory", "output") => &["plant.key"],
            ("lock", "output") => &["bundle.yaml", "list.txt"],
            ("sign", "payload_out" | "statement_out") => &["bundle.tar"],
            ("import", "receipt") | ("keygen" | "node-config" | "tls init", "output") => &[],
            other => panic!("say what {other:?} reads"),
        }
    }

    /// Whether the store that the command reads or writes is given to it.
    fn store(command: &str) -> bool {
        matches!(command, "check" | "export" | "import" | "inventory")
    }

    /// Runs the command, which must write.
    #[track_caller]
    fn writes(&self, command: &str, flag: &str, output: &str) -> Finished {
        self.forget();
        let finished = self.command(command, flag, output).finish();
        let text = format!("{command} {flag} {output}: {}", finished.stderr);
        // What was damaged and what is not ready are results of two of these commands.
        let expected = if matches!((command, flag), ("check", _) | ("import", "output")) { 4 } else { 0 };
        assert_eq!(finished.code, expected, "{text}");
        finished
    }

    /// Runs the command, which must refuse its output before it asks anybody for anything.
    #[track_caller]
    fn refuses(&self, command: &str, flag: &str, output: &str) -> Finished {
        self.forget();
        let before = self.names();
        let finished = self.command_with(command, flag, output, NOWHERE).finish();
        let text = format!("{command} {flag} {output}: {}", finished.stderr);
        assert_eq!(finished.code, USAGE, "{text}");
        assert!(finished.stderr.contains("hint: "), "{text}");
        assert!(finished.stdout.is_empty(), "{text}");
        assert_eq!(self.names(), before, "{command} {flag} {output} made or removed something");
        finished
    }

    /// Lets an import be made once more.
    fn forget(&self) {
        let _ = fs::remove_dir_all(self.path("imported"));
    }

    /// What lies in the directory of the site and in `out`.
    fn names(&self) -> Vec<PathBuf> {
        let list = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<PathBuf> = list(self.path("")).chain(list(self.path("out"))).collect();
        names.sort();
        names
    }

    /// Empties `out`.
    fn clear(&self) {
        fs::remove_dir_all(self.path("out")).unwrap();
        fs::create_dir(self.path("out")).unwrap();
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    #[track_caller]
    fn is_link(&self, name: &str) {
        assert!(self.path(name).is_symlink(), "the link {name} is gone");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// Panics unless these are the bytes that a command writes, which for an inventory differ in the time.
#[track_caller]
fn same(command: &str, written: &[u8], expected: &[u8]) {
    match command {
        "inventory" => assert_eq!(written.len(), expected.len()),
        _ => assert!(written == expected, "{command} wrote {}", String::from_utf8_lossy(written)),
    }
}

/// Makes a special file. Containers may forbid device nodes; then there is nothing to protect.
fn special(path: &Path, kind: &[&str]) -> bool {
    Command::new("mknod").arg(path).args(kind).finish().code == 0
}

fn flags(way: Way) -> impl Iterator<Item = (&'static str, &'static str)> {
    OUTPUTS.into_iter().filter(move |(.., of)| *of == way).map(|(command, flag, _)| (command, flag))
}

#[test]
fn streams_take_files_links_devices_and_pipes() {
    let world = World::new();
    for (command, flag) in flags(Way::Stream) {
        world.clear();
        world.writes(command, flag, "out/new");
        let data = world.read("out/new");
        assert!(!data.is_empty());
        let mode = |name: &str| world.path(name).metadata().unwrap().mode() & 0o777;
        fs::write(world.path("out/plain"), "").unwrap();
        assert_eq!(mode("out/new"), mode("out/plain"), "{command} {flag}: not as the umask says");

        fs::write(world.path("out/old"), "old").unwrap();
        fs::set_permissions(world.path("out/old"), fs::Permissions::from_mode(0o640)).unwrap();
        world.link("old", "out/link");
        world.writes(command, flag, "out/link");
        world.is_link("out/link");
        same(command, &world.read("out/old"), &data);
        assert_eq!(mode("out/old"), 0o640, "{command} {flag}: the mode has changed");

        fs::create_dir(world.path("out/stick")).unwrap();
        world.link("stick/real", "out/dangling");
        world.writes(command, flag, "out/dangling");
        world.is_link("out/dangling");
        same(command, &world.read("out/stick/real"), &data);

        world.link("/proc/self/fd/1", "out/stdout");
        for output in ["-", "out/stdout", "/dev/stdout", "/dev/fd/1"] {
            let finished = world.writes(command, flag, output);
            if command == "export" {
                assert_eq!(finished.stdout, String::from_utf8_lossy(&data), "{output}");
            } else {
                same(command, finished.stdout.as_bytes(), String::from_utf8_lossy(&data).as_bytes());
            }
        }
        assert!(!world.path("-").exists());
        world.is_link("out/stdout");

        assert!(special(&world.path("out/fifo"), &["p"]));
        let reader = Command::new("timeout")
            .arg("60")
            .arg("cat")
            .arg(world.path("out/fifo"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        world.writes(command, flag, "out/fifo");
        same(command, &reader.wait_with_output().unwrap().stdout, &data);
        assert!(world.path("out/fifo").metadata().unwrap().file_type().is_fifo());

        if special(&world.path("out/null"), &["c", "1", "3"]) {
            world.writes(command, flag, "out/null");
            assert!(world.path("out/null").metadata().unwrap().file_type().is_char_device());
        }
        let left = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".dray");
        assert!(!fs::read_dir(world.path("out")).unwrap().any(|entry| left(entry.unwrap())));
    }
}

#[test]
fn a_result_gives_way_to_data_on_stdout() {
    let world = World::new();
    for (command, flag) in flags(Way::Stream).filter(|(command, _)| *command != "export") {
        world.forget();
        let finished = world.command(command, flag, "-").args(["--format", "json"]).finish();
        let printed = &finished.stderr;
        let json = &printed[printed.find(['{', '[']).unwrap_or_default()..];
        let mut values = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>();
        assert!(matches!(values.next(), Some(Ok(_))), "{command} {flag}: {printed}");
        world.forget();
        let quiet = world.command(command, flag, "-").arg("-q").finish();
        assert!(quiet.stderr.lines().all(|line| !line.contains("standard output:")), "{}", quiet.stderr);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_refused_first() {
    let world = World::new();
    for (command, flag, way) in OUTPUTS {
        world.clear();
        fs::create_dir(world.path("out/folder")).unwrap();
        fs::write(world.path("out/file"), "old").unwrap();
        let _socket = UnixListener::bind(world.path("out/socket")).unwrap();
        world.link("nowhere/file", "out/lost");
        world.link("loop", "out/loop");
        let nodes =
            [("out/fifo", &["p"][..]), ("out/null", &["c", "1", "3"]), ("out/block", &["b", "7", "250"])];
        for (name, kind) in nodes {
            special(&world.path(name), kind);
        }
        let mut refused = vec!["out/socket", "out/loop", "out/lost", "out/file/x"];
        match way {
            Way::Stream => refused.extend(["out/block", "out/new/", "out/no/file"]),
            Way::Seekable => {
                refused.extend([
                    "-",
                    "/dev/stdout",
                    "out/fifo",
                    "out/null",
                    "out/block",
                    "out/new/",
                    "out/no/file",
                ]);
            }
            Way::Directory => {
                refused.extend(["-", "/dev/stdout", "out/fifo", "out/null", "out/block", "out/file"]);
            }
            Way::Prefix => {
                refused.extend(["-", "/dev/stdout", "out/fifo", "out/null", "out/block", "out/no/file"]);
            }
        }
        // An export has a name for its file.
        if way != Way::Directory && command != "export" {
            refused.push("out/folder");
        }
        for output in refused {
            if Path::new(output).is_absolute()
                || output == "-"
                || fs::symlink_metadata(world.path(output)).is_ok()
            {
                world.refuses(command, flag, output);
            } else {
                world.refuses(command, flag, output).says(&[output]);
            }
        }
        for (name, kind) in nodes {
            let Ok(metadata) = world.path(name).metadata() else { continue };
            assert!(!metadata.file_type().is_file(), "{command} {flag} replaced {name}, {kind:?}");
        }
        assert!(world.path("out/socket").metadata().unwrap().file_type().is_socket());
        assert_eq!(world.read("out/file"), b"old");
    }
}

#[test]
fn a_read_only_place_is_refused_first() {
    let world = World::new();
    let disk = SmallDisk::mount(world.path("disk"), "1m");
    fs::write(world.path("disk/old"), "old").unwrap();
    Command::new("mount").args(["-o", "remount,ro"]).arg(world.path("disk")).succeed();
    for (command, flag, way) in OUTPUTS {
        let new = if way == Way::Stream && command == "export" { "disk" } else { "disk/new" };
        world.refuses(command, flag, new).says(&["disk"]);
        if matches!(way, Way::Stream | Way::Seekable) {
            world.refuses(command, flag, "disk/old").says(&["disk/old"]);
        }
    }
    drop(disk);
}

#[test]
fn an_input_is_refused_under_every_name() {
    let world = World::new();
    for (command, flag, _) in OUTPUTS {
        for input in World::inputs(command, flag) {
            world.clear();
            let bytes = world.read(input);
            fs::hard_link(world.path(input), world.path("out/hard")).unwrap();
            world.link(&format!("../{input}"), "out/soft");
            let names = [input.to_string(), format!("./{input}"), format!("out/../{input}")];
            for output in names.iter().map(String::as_str).chain(["out/hard", "out/soft"]) {
                world.refuses(command, flag, output).says(&["also an input"]);
            }
            assert!(world.read(input) == bytes, "{command} {flag} has changed {input}");
            world.is_link("out/soft");
        }
        if World::store(command) && Way::Directory != way_of(command, flag) {
            world.link("../store", "out/store");
            let store = if (command, flag) == ("import", "output") { "imported" } else { "store" };
            if store == "store" {
                for output in ["store/new", "out/store/new", "store/blobs/new"] {
                    world.refuses(command, flag, output).says(&["also an input"]);
                }
            }
        }
    }
    world.refuses("import", "receipt", "store/imports").says(&["also an input"]);
}

fn way_of(command: &str, flag: &str) -> Way {
    OUTPUTS.into_iter().find(|(of, is, _)| (*of, *is) == (command, flag)).unwrap().2
}

#[test]
fn two_outputs_of_one_command_are_two_files() {
    let world = World::new();
    for output in ["out/both", "-"] {
        let mut sign = world.command("sign", "payload_out", output);
        sign.args(["--statement-out", output]).fail_with(USAGE).says(&["two different things"]);
    }
    world.link("both", "out/link");
    let mut sign = world.command("sign", "payload_out", "out/both");
    sign.args(["--statement-out", "out/link"]).fail_with(USAGE).says(&["two different things"]);
    assert!(!world.path("out/both").exists());
}

#[test]
fn a_bundle_goes_behind_a_link_with_all_that_belongs_to_it() {
    let world = World::new();
    fs::create_dir(world.path("out/stick")).unwrap();
    world.link("stick/real.tar", "out/plant.tar");
    let sealed = ["--volume-size", "260kB", "--parity", "50%"];
    let build = |upstream: &str| {
        let mut build = dray();
        build.current_dir(world.path("")).args(["build", "--lock", "bundle.lock", "--key", "plant.key"]);
        build.args(["-o", "out/plant.tar"]).args(support::upstream::flags(upstream));
        build
    };
    // An earlier run was interrupted: what it left is continued, and it is behind the link.
    build(NOWHERE).fail_with(FAILED);
    assert!(world.path("out/stick/real.tar.partial").exists());
    build(world.upstream.address()).succeed();
    assert!(world.read("out/stick/real.tar") == world.read("bundle.tar"));
    build(world.upstream.address()).args(sealed).succeed();
    world.is_link("out/plant.tar");
    let names = |path: &str| {
        let entries = fs::read_dir(world.path(path)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("out"), ["plant.tar", "stick"]);
    assert!(names("out/stick").iter().any(|name| name.starts_with("real.1of")), "{:?}", names("out/stick"));
    assert!(names("out/stick").iter().any(|name| name.starts_with("real.parity.")));
    assert!(!names("out/stick").iter().any(|name| name.contains("partial")), "{:?}", names("out/stick"));
}

#[test]
fn names_that_are_derived_never_follow_a_link() {
    let world = World::new();
    let build = |more: &[&str]| {
        let mut build = world.command_with("build", "output", "out/x.tar", NOWHERE);
        build.args(more);
        build
    };
    let volumes: Vec<String> = fs::read_dir(world.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("plant.") && name.contains("of"))
        .map(|name| name.replacen("plant.", "x.", 1))
        .collect();
    assert!(volumes.len() > 2, "{volumes:?}");
    let sealed = ["--volume-size", "260kB", "--parity", "50%"];
    let derived = ["x.tar.partial", "x.tar.partial.journal"].map(|name| (name.to_owned(), false));
    let partial = volumes.iter().map(|name| (format!("{name}.partial"), true));
    let finished = volumes.iter().map(|name| (name.clone(), true));
    for (name, is_cut) in derived.into_iter().chain(partial).chain(finished) {
        // Without --since the volumes are as many as they were.
        let arguments: &[&str] = if is_cut { &sealed } else { &[] };
        let run = |why: &str| {
            let mut command = if is_cut {
                let mut build = dray();
                build.current_dir(world.path("")).args([
                    "build",
                    "--lock",
                    "bundle.lock",
                    "--key",
                    "plant.key",
                ]);
                build.args(["-o", "out/x.tar"]).args(support::upstream::flags(NOWHERE)).args(arguments);
                build
            } else {
                build(arguments)
            };
            let finished = command.finish();
            assert!([USAGE, FAILED].contains(&finished.code), "{name} {why}: {}", finished.stderr);
            finished.says(&[&name]);
        };
        world.clear();
        fs::write(world.path("out/victim"), "precious").unwrap();
        world.link("victim", &format!("out/{name}"));
        run("as a link");
        world.is_link(&format!("out/{name}"));
        assert_eq!(world.read("out/victim"), b"precious", "{name}");

        world.clear();
        world.link("nowhere", &format!("out/{name}"));
        run("as a dangling link");
        assert!(!world.path("out/nowhere").exists(), "{name}");

        world.clear();
        if special(&world.path(&format!("out/{name}")), &["p"]) {
            run("as a FIFO");
            assert!(world.path(&format!("out/{name}")).metadata().unwrap().file_type().is_fifo());
        }
    }
    // A hard link is another name of something, too.
    world.clear();
    fs::write(world.path("out/victim"), "precious").unwrap();
    fs::hard_link(world.path("out/victim"), world.path("out/x.tar.partial")).unwrap();
    build(&[]).finish().says(&["x.tar.partial", "another name"]);
    assert_eq!(world.read("out/victim"), b"precious");
}

#[test]
fn derived_names_that_are_inputs_are_refused() {
    let world = World::new();
    fs::copy(world.path("bundle.lock"), world.path("out/x.tar.partial")).unwrap();
    let mut build = dray();
    build.current_dir(world.path("")).args(["build", "--lock", "out/x.tar.partial", "-o", "out/x.tar"]);
    build.args(support::upstream::flags(NOWHERE)).fail_with(USAGE).says(&["also an input"]);
    assert!(world.read("out/x.tar.partial") == world.read("bundle.lock"));

    fs::copy(world.path("plant.key"), world.path("bundle.tar.tail")).unwrap();
    let mut sign = dray();
    sign.current_dir(world.path("")).args(["sign", "bundle.tar", "--key", "bundle.tar.tail"]);
    sign.fail_with(USAGE).says(&["also an input"]);
    assert!(world.read("bundle.tar.tail") == world.read("plant.key"));
}

#[test]
fn sign_and_repair_change_files_behind_links_and_nothing_else() {
    let world = World::new();
    dray().args(["keygen", "-o"]).arg(world.path("other")).succeed();
    let run = |arguments: &[&str]| {
        let mut dray = dray();
        dray.current_dir(world.path("")).args(arguments);
        dray
    };
    world.link("../bundle.tar", "out/link.tar");
    run(&["sign", "out/link.tar", "--key", "other.key"]).succeed();
    world.is_link("out/link.tar");
    run(&["verify", "bundle.tar", "--trust", "other.pub"]).succeed();
    assert_eq!(fs::read_dir(world.path("out")).unwrap().count(), 1);

    // A volume, of which only a link is named.
    let mut files = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path());
    let volume = files.find(|path| path.to_string_lossy().contains("plant.1of")).unwrap();
    let name = volume.file_name().unwrap().to_str().unwrap().to_owned();
    let good = fs::read(&volume).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xaa);
    fs::write(&volume, bytes).unwrap();
    world.link(&format!("../{name}"), &format!("out/{name}"));
    let others: Vec<String> = fs::read_dir(world.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|other| other.starts_with("plant.") && other.contains("of") && *other != name)
        .collect();
    let mut repair = run(&["repair", &format!("out/{name}")]);
    repair.args(&others).succeed();
    world.is_link(&format!("out/{name}"));
    assert!(fs::read(&volume).unwrap() == good);

    let _socket = UnixListener::bind(world.path("out/socket")).unwrap();
    for (name, kind) in
        [("out/fifo", &["p"][..]), ("out/null", &["c", "1", "3"]), ("out/block", &["b", "7", "250"])]
    {
        special(&world.path(name), kind);
    }
    for output in ["-", "/dev/stdout", "out/fifo", "out/null", "out/block", "out/socket"] {
        run(&["sign", output, "--key", "other.key"]).fail_with(USAGE).says(&["hint: "]);
        run(&["repair", output]).fail_with(USAGE).says(&["hint: "]);
    }
    // What is next to the bundle never follows a link.
    for suffix in ["tail", "tail.new"] {
        fs::write(world.path("out/victim"), "precious").unwrap();
        world.link("out/victim", &format!("bundle.tar.{suffix}"));
        run(&["sign", "bundle.tar", "--key", "other.key"]).fail_with(USAGE).says(&[suffix]);
        assert_eq!(world.read("out/victim"), b"precious");
        fs::remove_file(world.path(&format!("bundle.tar.{suffix}"))).unwrap();
    }
}

#[test]
fn directories_are_made_or_filled_and_links_to_them_stay() {
    let world = World::new();
    for (command, flag) in flags(Way::Directory) {
        world.clear();
        world.writes(command, flag, "out/new/deep");
        assert!(fs::read_dir(world.path("out/new/deep")).unwrap().count() > 0);
        fs::create_dir(world.path("out/real")).unwrap();
        world.link("real", "out/link");
        world.writes(command, flag, "out/link");
        world.is_link("out/link");
        assert!(fs::read_dir(world.path("out/real")).unwrap().count() > 0);
    }
    // Keys are for their owner only, also when they are replaced, and no link of their name is followed.
    let tls = |name: &str| world.path(&format!("out/tls/{name}"));
    world.clear();
    world.writes("tls init", "output", "out/tls");
    fs::set_permissions(tls("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
    world.writes("tls init", "output", "out/tls");
    assert_eq!(tls("server.key").metadata().unwrap().mode() & 0o777, 0o600);
    fs::rename(tls("server.key"), tls("elsewhere")).unwrap();
    symlink("elsewhere", tls("server.key")).unwrap();
    let before = fs::read(tls("elsewhere")).unwrap();
    world.command("tls init", "output", "out/tls").fail_with(FAILED).says(&["server.key", "symbolic link"]);
    assert!(fs::read(tls("elsewhere")).unwrap() == before);
}

#[test]
fn keys_are_made_next_to_what_a_link_leads_to_and_never_replace() {
    let world = World::new();
    fs::create_dir(world.path("out/stick")).unwrap();
    world.link("stick/site", "out/site");
    world.writes("keygen", "output", "out/site");
    world.is_link("out/site");
    let mode = |name: &str| world.path(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode("out/stick/site.key"), 0o600);
    assert!(world.path("out/stick/site.pub").exists());
    let key = world.read("out/stick/site.key");
    world.command("keygen", "output", "out/site").fail_with(FAILED).says(&["never overwritten"]);
    assert!(world.read("out/stick/site.key") == key);
    for suffix in ["key", "pub"] {
        world.clear();
        world.link("nowhere", &format!("out/a.{suffix}"));
        world.command("keygen", "output", "out/a").fail_with(FAILED).says(&["never overwritten"]);
        assert_eq!(fs::read_dir(world.path("out")).unwrap().count(), 1, "half a pair is left");
    }
}

#[test]
fn an_export_gets_its_name_in_a_directory() {
    let world = World::new();
    let finished = world.writes("export", "output", "out");
    let made = fs::read_dir(world.path("out")).unwrap().next().unwrap().unwrap().file_name();
    assert!(finished.stdout.contains(made.to_str().unwrap()), "{}", finished.stdout);
    // A link that somebody has planted under that name is not followed.
    let made = world.path("out").join(made);
    fs::remove_file(&made).unwrap();
    fs::write(world.path("victim"), "mine").unwrap();
    symlink(world.path("victim"), &made).unwrap();
    world.refuses("export", "output", "out");
    assert_eq!(fs::read_to_string(world.path("victim")).unwrap(), "mine");
}

#[test]
fn a_file_too_large_for_the_file_system_gets_a_hint() {
    let world = World::new();
    // The limit of a process gives the same error as a FAT32 medium.
    let mut build = world.command("build", "output", "out/x.tar");
    let program = build.get_program().to_owned();
    let arguments: Vec<_> = build.get_args().map(ToOwned::to_owned).collect();
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "bash"]).arg(program).args(arguments);
    limited.current_dir(world.path("")).fail_with(FAILED).says(&["--volume-size fat32", "x.tar.partial"]);
    build.succeed();
}
