//! Volumes that came damaged, and volumes that are served as they lie there.

use std::{fs, path::Path, process::Command};

use dray::bundle::{Bundle, Volume};

use crate::{
    support::{
        command::Run,
        site::{Serve, dray, files_below},
    },
    volumes::{Carrier, INCOMPLETE, UNVERIFIED, USAGE, flip},
};

/// Panics if the store has anything that could be asked for.
#[track_caller]
fn nothing_came(store: &Path, what: &str) {
    if store.exists() {
        let named = |path: &&std::path::PathBuf| {
            let path = path.to_str().unwrap();
            path.contains("imports") || path.contains("tags")
        };
        assert_eq!(files_below(store).iter().find(named), None, "{what}");
    }
}

#[test]
fn an_import_of_damaged_volumes_fails_as_a_verification_and_changes_nothing() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let (usb, store) = (carrier.path("usb"), carrier.path("store"));
    for (nth, path) in volumes.iter().enumerate() {
        let good = fs::read(path).unwrap();
        let len = good.len();
        let mut spoilt: Vec<(String, Vec<u8>)> = [0, 1, 511, 600, 5000, len / 2, len - 1, len - 1024]
            .map(|left| (format!("cut to {left}"), good[..left].to_vec()))
            .into();
        // Zeros between entries are padding, which an import does not read.
        let middle = (len / 2..len).find(|at| good[*at] != 0).unwrap();
        for at in [0, 700, 3000, middle, len - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            spoilt.push((format!("byte {at} flipped"), bytes));
        }
        spoilt.push(("zeroed".to_owned(), vec![0; len]));
        spoilt.push(("something else".to_owned(), b"holiday.jpg".repeat(1000)));
        spoilt.push(("longer".to_owned(), [&good[..], b"more"].concat()));
        // The directory, one that is whole, and all by their names are asked for in turn.
        for (turn, (what, bytes)) in spoilt.iter().enumerate() {
            fs::write(path, bytes).unwrap();
            let mut import = match turn % 3 {
                0 => carrier.import(&usb),
                1 => carrier.import(&volumes[(nth + 1) % volumes.len()]),
                _ => {
                    let mut import = carrier.import(&volumes[0]);
                    import.args(&volumes[1..]);
                    import
                }
            };
            let what = format!("volume {}: {what}", nth + 1);
            let finished = import.finish();
            assert_eq!(finished.code, UNVERIFIED, "{what}: {}", finished.stderr);
            assert!(finished.stderr.contains(path.to_str().unwrap()), "{what}: {}", finished.stderr);
            assert!(finished.stderr.contains("byte"), "{what}: {}", finished.stderr);
            nothing_came(&store, &what);
            // What an import found good before it failed stays, and the next one would not read it again.
            let _ = fs::remove_dir_all(&store);
        }
        fs::write(path, good).unwrap();
    }
    let mut twice = carrier.import(&volumes[0]);
    fs::copy(&volumes[0], carrier.path("copy.tar")).unwrap();
    twice.arg(carrier.path("copy.tar")).fail_with(USAGE).says(&["both volume 1", "copy.tar"]);
    fs::rename(&volumes[1], carrier.path("aside")).unwrap();
    carrier.import(&usb).fail_with(INCOMPLETE).says(&[
        "volume 2 of",
        "is missing",
        volumes[1].to_str().unwrap(),
    ]);
    nothing_came(&store, "one is missing");
    fs::rename(carrier.path("aside"), &volumes[1]).unwrap();
    carrier.import(&usb).succeed();
}

#[test]
fn a_volume_that_cannot_be_read_is_damaged() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let store = carrier.path("store");
    for path in &volumes {
        // The header can be read, and what comes after it cannot.
        for first in [1, 4] {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qqq", "-o", "/dev/null", "-P"]).arg(path);
            strace.args(["-e", "trace=pread64", "-e", &format!("inject=pread64:error=EIO:when={first}+")]);
            let import = carrier.import(&carrier.path("usb"));
            strace.arg(import.get_program()).args(import.get_args()).env("HOME", "/nonexistent");
            let finished = strace.finish();
            assert_eq!(finished.code, UNVERIFIED, "{}: {}", path.display(), finished.stderr);
            assert!(finished.stderr.contains(path.to_str().unwrap()), "{}", finished.stderr);
            nothing_came(&store, "a volume that cannot be read");
            let _ = fs::remove_dir_all(&store);
        }
    }
    carrier.import(&carrier.path("usb")).succeed();
}

#[test]
fn a_layer_across_two_volumes_is_served_whole_and_in_ranges() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let seam = Volume::open(&volumes[0]).unwrap().len();
    let whole = carrier.path("whole.tar");
    carrier.site.build(carrier.upstream.address(), &whole).succeed();
    let bundle = Bundle::open(&whole).unwrap();
    let crosses = |place: dray::bundle::Place| place.offset < seam && seam < place.offset + place.size;
    let mut digests = bundle.lock().blobs.iter().map(|blob| &blob.digest);
    let digest = digests
        .find(|digest| bundle.place(digest).is_some_and(crosses))
        .expect("no blob lies across the seam");
    let place = bundle.place(digest).unwrap();
    let start = usize::try_from(place.offset).unwrap();
    let content = &fs::read(&whole).unwrap()[start..start + usize::try_from(place.size).unwrap()];
    let image = bundle.lock().images.iter().find(|image| image.contents().any(|other| other == digest));
    let name = image.expect("a layer belongs to an image").reference.name().to_string();

    let tls = carrier.path("tls");
    dray().args(["tls", "init", "--san", "127.0.0.1", "-q", "-o"]).arg(&tls).succeed();
    let (usb, key) = (carrier.path("usb"), carrier.path("plant.pub"));
    let (certificate, secret) = (tls.join("server.crt"), tls.join("server.key"));
    let plain = ["--bundle", usb.to_str().unwrap(), "--trust", key.to_str().unwrap()];
    let secured = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", secret.to_str().unwrap()];
    let inside = usize::try_from(seam - place.offset).unwrap();
    for (scheme, arguments) in [("http", plain.to_vec()), ("https", [&plain[..], &secured].concat())] {
        let serve = Serve::start(&arguments);
        let url = format!("{scheme}://{}/v2/{name}/blobs/{digest}", serve.address());
        let get = |range: Option<std::ops::Range<usize>>| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-f", "-o"]).arg(carrier.path("got")).arg("--cacert").arg(tls.join("ca.crt"));
            curl.args(["-w", "%{http_code}"]);
            if let Some(range) = range {
                curl.args(["-r", &format!("{}-{}", range.start, range.end - 1)]);
            }
            let status = curl.arg(&url).succeed();
            (status, fs::read(carrier.path("got")).unwrap())
        };
        let (status, got) = get(None);
        assert!(status == "200" && got == content, "{scheme}: {status}, {} bytes", got.len());
        for range in [
            inside - 1..inside + 1,
            inside - 700..inside + 900,
            0..inside,
            inside..content.len(),
            inside..inside + 1,
        ] {
            let (status, got) = get(Some(range.clone()));
            assert!(
                status == "206" && got == content[range.clone()],
                "{scheme}: {range:?}: {status}, {} bytes",
                got.len()
            );
        }
    }
    // A seam is no way around the hash: what is damaged behind it does not leave, not even what is before it.
    flip(
        &volumes[1],
        Volume::open(&volumes[1]).map(|v| fs::metadata(v.path()).unwrap().len() - v.len() - 1024).unwrap(),
    );
    let serve = Serve::start(&plain);
    let url = format!("http://{}/v2/{name}/blobs/{digest}", serve.address());
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-r", "0-99", &url]);
    assert_eq!(curl.finish().stdout, "500");
}
