//! That what was answered with 201 is on the disk, and not on its way there: in a trace of the server's system calls, every
//! file and every entry of a folder has been synced before the answer leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dray::oci::{Digest, media_type};

use crate::client::Connection;
use crate::faults::serve_under;

/// What a power failure would take away, followed call by call.
#[derive(Default)]
struct Disk {
    /// Files whose bytes have been synced.
    synced: BTreeSet<PathBuf>,
    /// Files of the store that got their names before their bytes were synced.
    unsynced: BTreeSet<PathBuf>,
    /// Folders with entries that came or went since they were synced.
    changed: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    answers: usize,
}

impl Disk {
    fn change(&mut self, path: &Path) {
        self.changed.entry(path.parent().unwrap().to_owned()).or_default().insert(path.to_owned());
    }

    /// Follows one call; `kept` says which paths must outlive a power failure. Fails at an answer that comes too early.
    fn follow(&mut self, call: &str, kept: impl Fn(&Path) -> bool) -> Result<(), String> {
        let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
        let quoted: Vec<PathBuf> = arguments.split('"').skip(1).step_by(2).map(PathBuf::from).collect();
        let done = call.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        match name {
            "fsync" | "fdatasync" if done => {
                let path = PathBuf::from(arguments.split(['<', '>']).nth(1).unwrap_or_default());
                self.unsynced.remove(&path);
                self.changed.remove(&path);
                self.synced.insert(path);
            }
            "rename" | "renameat" | "renameat2" if done => {
                let [from, to] = &quoted[..] else { return Err(format!("cannot read {call}")) };
                self.change(to);
                if !self.synced.remove(from) {
                    self.unsynced.insert(to.clone());
                }
            }
            "openat" if done && call.contains("O_CREAT") => self.change(&quoted[0]),
            "mkdir" | "mkdirat" | "unlink" | "unlinkat" if done => self.change(&quoted[0]),
            "write" | "writev" | "sendto" | "sendmsg" if call.contains("\"HTTP/1.1 20") => {
                self.answers += 1;
                let entries = self.changed.values().flatten();
                if let Some(lost) = self.unsynced.iter().chain(entries).find(|path| kept(path)) {
                    return Err(format!("{} could be lost at {call}", lost.display()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The calls in a trace, each at the time when it was done, but for those that send: at the time when they began.
fn calls(trace: &str) -> Vec<String> {
    let mut begun = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(head) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, head.to_owned());
            if head.contains("\"HTTP/1.1 ") {
                calls.push(head.to_owned());
            }
        } else if let Some((_, rest)) = call.split_once(" resumed>") {
            let head = begun.remove(thread).unwrap_or_default();
            if !head.contains("\"HTTP/1.1 ") {
                calls.push(head + rest);
            }
        } else {
            calls.push(call.to_owned());
        }
    }
    calls
}

/// Judges a trace; how many answers there were.
fn judge(store: &Path, calls: impl IntoIterator<Item = String>) -> Result<usize, String> {
    let kept = |path: &Path| {
        ["blobs", "repositories", "publish.json"].iter().any(|part| path.starts_with(store.join(part)))
    };
    let mut disk = Disk::default();
    calls.into_iter().try_for_each(|call| disk.follow(&call, kept))?;
    Ok(disk.answers)
}

#[test]
fn what_was_acknowledged_survives_a_power_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (store, trace) = (directory.path().join("store"), directory.path().join("trace"));
    dray::store::Store::create(&store).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qqq", "--interruptible=waiting", "-s", "16", "-o"]).arg(&trace);
    strace.args(["-e", "trace=/^(open|rename|mkdir|unlink|f(data)?sync|write|send)"]);
    let (server, address) = serve_under(&strace, &store);
    let mut connection = Connection::open(address);
    let mut ask = |method: &str, target: &str, headers: &[(&str, &str)], body: &[u8], status: u16| {
        connection.request(method, target, headers, body).expect(status)
    };
    let layer = b"0123456789".repeat(1000);
    let digest = Digest::sha256(&layer);
    let location = ask("POST", "/v2/a/blobs/uploads/", &[], b"", 202).header("location").to_owned();
    ask("PATCH", &location, &[], &layer[..5000], 202);
    ask("PUT", &format!("{location}?digest={digest}"), &[], &layer[5000..], 201);
    ask("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], b"", 201);
    let config = Digest::sha256(b"{}");
    ask("POST", &format!("/v2/a/blobs/uploads/?digest={config}"), &[], b"{}", 201);
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": media_type::OCI_LAYER_GZIP, "digest": digest, "size": layer.len()}],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1}});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let headers = [("Content-Type", media_type::OCI_MANIFEST)];
    ask("PUT", "/v2/a/manifests/one", &headers, &manifest, 201);
    // Several tags become visible together, by way of another file.
    let by_digest = format!("/v2/a/manifests/{}", Digest::sha256(&manifest));
    ask("PUT", &format!("{by_digest}?tag=two&tag=three"), &headers, &manifest, 201);
    ask("DELETE", "/v2/a/manifests/two", &[], b"", 202);
    ask("DELETE", &by_digest, &[], b"", 202);
    drop(server);

    let calls = calls(&fs::read_to_string(&trace).unwrap());
    assert_eq!(judge(&store, calls.clone()), Ok(9));
    // The judge finds what would be lost without a sync. Some are made twice, such as that of a folder two files went into.
    let syncs: Vec<usize> = (0..calls.len())
        .filter(|nth| calls[*nth].starts_with("fsync") && !calls[*nth].contains("/uploads>"))
        .collect();
    let without = |nth: &usize| {
        let others = calls.iter().enumerate().filter(|(other, _)| other != nth);
        judge(&store, others.map(|(_, call)| call.clone()))
    };
    let needed = syncs.iter().filter(|nth| without(nth).is_err()).count();
    assert!(needed >= 15 && needed * 3 > syncs.len() * 2, "{needed} of {}", syncs.len());
}
