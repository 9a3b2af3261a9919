//! Plain files, under the paths that they have upstream.

use dray::oci::{Algorithm, Digest, Hasher};
use dray::store::HostedFile;

use crate::site::{Site, name};

const REPOSITORY: &str = "bundles.dray.dev/plant";

/// Puts a file into the store under an address that starts with its host.
fn put(site: &Site, address: &str, bytes: &[u8]) -> Digest {
    let digest = site.blob(REPOSITORY, bytes);
    let (host, path) = address.split_once('/').unwrap();
    let file = HostedFile {
        host: host.to_owned(),
        repository: name(REPOSITORY),
        digest: digest.clone(),
        size: bytes.len() as u64,
    };
    let writer = site.writer();
    let mut batch = writer.batch();
    batch.put_file(path, &file).unwrap();
    batch.commit().unwrap();
    digest
}

#[test]
fn files_have_the_paths_that_they_have_upstream() {
    let site = Site::new();
    let digest = put(&site, "example.org/v1.36.3+k0s.2/k0s.exe", b"a binary");
    for path in [
        "example.org/v1.36.3+k0s.2/k0s.exe",
        "example.org/v1.36.3%2Bk0s.2/k0s.exe",
        "EXAMPLE.org/v1.36.3%2bk0s.2/k0s.exe",
        "v1.36.3+k0s.2/k0s.exe",
    ] {
        let target = format!("/files/{path}");
        let answer = site.get(&target).expect(200);
        assert_eq!(answer.body, b"a binary", "{path}");
        assert_eq!(answer.header("etag"), format!("\"{digest}\""));
        let head = site.head(&target).expect(200);
        assert_eq!((head.header("content-length"), head.header("accept-ranges")), ("8", "bytes"));
        let part = site.get_with(&target, &[("range", "bytes=2-")]).expect(206);
        assert_eq!((part.text().as_str(), part.header("content-range")), ("binary", "bytes 2-7/8"));
        site.get_with(&target, &[("if-none-match", &format!("\"{digest}\""))]).expect(304);
    }
    for path in ["", "k0s.exe", "example.org/", "example.org/v1.36.3+k0s.2/k0s", "../../store.json", "%ff"] {
        let status = site.get(&format!("/files/{path}")).status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert!(matches!(site.request("PUT", "/files/example.org/x", b"x").status, 404 | 405));
}

#[test]
fn checksums_are_beside_them() {
    let site = Site::new();
    let digest = put(&site, "example.org/a.tar.gz", b"an archive");
    put(&site, "example.org/b", b"listed");
    put(&site, "example.org/b.sha256", b"as upstream wrote it");
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"an archive");
    let sha512 = hasher.finish();
    for _ in 0..2 {
        assert_eq!(site.get("/files/example.org/a.tar.gz.sha256").expect(200).text(), digest.hex());
        assert_eq!(site.get("/files/example.org/a.tar.gz.sha512").expect(200).text(), sha512.hex());
    }
    assert_eq!(site.get("/files/example.org/b.sha256").expect(200).text(), "as upstream wrote it");
    site.get("/files/example.org/c.sha256").expect(404);
}

#[test]
fn kubernetes_releases_answer_under_both_paths() {
    let site = Site::new();
    put(&site, "dl.k8s.io/v1.36.3/bin/windows/amd64/kubelet.exe", b"kubelet");
    put(&site, "dl.k8s.io/release/v1.36.3/kubernetes-node-windows-amd64.tar.gz", b"node");
    put(&site, "example.org/v1.36.3/other", b"other");
    for host in ["", "dl.k8s.io/"] {
        for release in ["", "release/"] {
            let get = |path: &str| site.get(&format!("/files/{host}{release}v1.36.3/{path}"));
            assert_eq!(get("bin/windows/amd64/kubelet.exe").expect(200).text(), "kubelet");
            assert_eq!(get("kubernetes-node-windows-amd64.tar.gz").expect(200).text(), "node");
            assert_eq!(get("bin/windows/amd64/kubelet.exe.sha256").expect(200).body.len(), 64);
        }
    }
    site.get("/files/example.org/release/v1.36.3/other").expect(404);
}

#[test]
fn what_several_hosts_have_is_asked_for_with_the_host() {
    let site = Site::new();
    put(&site, "one.example/x", b"one");
    put(&site, "two.example:8443/x", b"one");
    assert_eq!(site.get("/files/x").expect(200).text(), "one");
    put(&site, "two.example:8443/x", b"two");
    let answer = site.get("/files/x").expect(404);
    let candidates = &answer.json()["errors"][0]["detail"]["candidates"];
    assert_eq!(candidates, &serde_json::json!(["/files/one.example/x", "/files/two.example:8443/x"]));
    assert_eq!(site.get("/files/two.example:8443/x").expect(200).text(), "two");
}
