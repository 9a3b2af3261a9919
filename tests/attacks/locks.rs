//! Locks that say what no lock may say. Every digest above them is right, and the trusted key has signed them.

use super::bench::{attacks, locked, relocked, written};
use crate::sample::Sample;

const NOT_VALID: &str = "the lock is not valid";
const CONTRADICTS: &str = "the lock contradicts itself";

const LAYER: &str = "quay.io/acme/agent:2.4";

fn text() -> String {
    String::from_utf8(Sample::new().lock.to_json()).unwrap()
}

/// The lock with one more field.
fn with(field: &str) -> Vec<Vec<u8>> {
    relocked("\"sequence\"", &[&format!("{field},\n  \"sequence\"")])
}

attacks! {
    a_lock_that_goes_on_forever: AtOnce, [], || {
        let deep = |open: &str, close: &str| {
            let field = format!("\"proof\": {}{}", open.repeat(50_000), close.repeat(50_000));
            relocked("\"proof\": []", &[&field])
        };
        [deep("[", "]"), deep("{\"a\":", "}"), with(&format!("\"x\": {}", "[".repeat(100_000)))].concat()
    };
    a_lock_larger_than_any: AtOnce, ["is too large, at byte"], || {
        let padding = " ".repeat(dray::resolve::MAX_LOCK_BYTES);
        written([format!("{}{padding}", text())])
    };
    more_images_than_fit_a_lock: AtOnce, ["is too large"], || {
        let image = format!(
            r#"{{"ref":"a.b/c:1","root":{{"mediaType":"a","digest":"sha256:{}","size":1}}}},"#,
            "0".repeat(64)
        );
        relocked("\"images\": [", &[&format!("\"images\": [{}", image.repeat(600_000))])
    };
    many_images_without_a_blob: AtOnce, [CONTRADICTS], || {
        let image = |nth: usize| {
            format!(
                r#"{{"ref":"a.b/c:{nth:06}","root":{{"mediaType":"a","digest":"sha256:{nth:064x}","size":1}}}}"#
            )
        };
        let images: Vec<String> = (0..20_000).map(image).collect();
        let mut lock: serde_json::Value = serde_json::from_str(&text()).unwrap();
        lock["images"] = serde_json::from_str(&format!("[{}]", images.join(","))).unwrap();
        written([lock.to_string()])
    };
    a_key_that_is_there_twice: AtOnce, ["duplicate field"], || {
        [with("\"sequence\": 99"), with("\"name\": \"other\""), with("\"schemaVersion\": 3")].concat()
    };
    a_key_that_nobody_knows: AtOnce, ["at byte "], || with("\"entrypoint\": \"sh\"");
    numbers_that_are_none: AtOnce, [NOT_VALID], || {
        let numbers = ["18446744073709551616", "1e400", "-1", "7.5", "1e3", "0x7", "\"7\"", "null", "NaN", "007"];
        relocked("\"sequence\": 7", &numbers.map(|number| format!("\"sequence\": {number}")).each_ref().map(|s| &**s))
    };
    sizes_that_overflow_together: AtOnce, ["the sizes of the blobs overflow"], || {
        let mut lock: serde_json::Value = serde_json::from_str(&text()).unwrap();
        for blob in lock["blobs"].as_array_mut().unwrap() {
            blob["size"] = (u64::MAX / 2).into();
        }
        written([lock.to_string()])
    };
    sizes_that_overflow_a_file: AtOnce, ["too large to be laid out in one file"], || {
        let mut lock: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let unneeded = |nth: u64| serde_json::json!({"digest": format!("sha256:{nth:064x}"), "size": u64::MAX / 16});
        let blobs = lock["blobs"].as_array_mut().unwrap();
        blobs.splice(0..0, (0..10).map(unneeded));
        written([lock.to_string()])
    };
    another_version_of_the_lock: AtOnce, ["the lock has version", "use a newer dray"], || {
        relocked("\"schemaVersion\": 2", &["\"schemaVersion\": 3", "\"schemaVersion\": 0"])
    };
    no_version_of_the_lock: AtOnce, [NOT_VALID], || {
        relocked("\"schemaVersion\": 2,", &["", "\"schemaVersion\": \"2\",", "\"schemaVersion\": -1,"])
    };
    something_after_the_lock: AtOnce, [NOT_VALID], || written([format!("{}{{}}", text()), format!("{}\0", text())]);
    something_before_the_lock: AtOnce, [NOT_VALID], || written([format!("\u{feff}{}", text())]);
    a_lock_in_another_form: AtOnce, ["at byte "], || {
        let lock: serde_json::Value = serde_json::from_str(&text()).unwrap();
        written([lock.to_string(), text().trim_end().to_owned(), text() + "\n", text().replace('\n', "\r\n")])
    };
    a_lock_that_is_none: AtOnce, [NOT_VALID], || written(["", "null", "[]", "7", "\"lock\""].map(str::to_owned));
    names_of_bundles_that_are_paths: AtOnce, ["is not a bundle name"], || {
        relocked(
            "\"plant-7\"",
            &[
                r#""../evil""#, r#""a/b""#, r#""..""#, r#""""#, r#""A""#, r#""a\u0000b""#, r#""a\\b""#, r#""-rf""#,
                r#""a%2fb""#, r#""a\n""#, r#""a.b""#,
            ],
        )
    };
    names_of_images_that_are_paths: AtOnce, [NOT_VALID], || {
        relocked(
            "\"quay.io/acme/agent:2.4\"",
            &[
                r#""quay.io/../../etc/passwd:1""#, r#""../evil:1""#, r#""/etc/passwd:1""#, r#""quay.io/acme/agent:../1""#,
                r#""quay.io/acme//agent:1""#, r#""quay.io/./agent:1""#, r#""quay.io/acme/agent:2.4\u0000""#,
                r#""quay.io/a\\b:1""#, r#""quay.io/acme/agent%2f..:1""#, r#""C:\\evil""#, r#""quay.io/acme/agent:""#, r#""""#,
                r#""quay.io/acme/agent@sha256:../../x""#, r#""file:///etc/passwd""#, r#""quay.io/\u202egnp.exe:1""#,
            ],
        )
    };
    sources_of_blobs_that_are_paths: AtOnce, [NOT_VALID], || {
        relocked("\"from\": \"quay.io/acme/agent\"", &[r#""from": "../../etc""#, r#""from": "/etc""#, r#""from": "a\u0000b""#])
    };
    digests_that_are_paths: AtOnce, [NOT_VALID], || {
        let digest = "\"digest\": \"sha256:";
        relocked(digest, &["\"digest\": \"../../", "\"digest\": \"sha256:/../", "\"digest\": \"sha256:..\\\\"])
    };
    digests_of_other_algorithms: AtOnce, [NOT_VALID], || {
        let digest = "\"digest\": \"sha256:";
        relocked(
            digest,
            &["\"digest\": \"sha512:", "\"digest\": \"md5:", "\"digest\": \"SHA256:", "\"digest\": \"sha1:", "\"digest\": \""],
        )
    };
    digests_in_capitals: AtOnce, [NOT_VALID], || {
        let text = text();
        let at = text.find("\"digest\": \"sha256:").unwrap() + "\"digest\": \"sha256:".len();
        written([format!("{}{}{}", &text[..at], text[at..at + 64].to_uppercase(), &text[at + 64..])])
    };
    addresses_of_files_that_are_paths: AtOnce, ["is not the address of a file"], || {
        let refused = [
            "file:///etc/passwd", "data:,x", "https://dl.example.org", "https://dl.example.org/", "https://dl.example.org/a/",
            "https://dl.example.org/a%2f..%2f..%2fetc%2fpasswd", "https://dl.example.org/%2e%2e%2fevil",
            "https://dl.example.org/a%00b", "https://dl.example.org/a%0d%0ab", "https://dl.example.org/a%5c..%5cevil",
            "https://dl.example.org/%ff", "/etc/passwd", "../evil", "",
        ];
        relocked("https://dl.example.org/v1/tool.exe", &refused)
    };
    tags_of_evidence_that_are_paths: AtOnce, [NOT_VALID], || {
        let mut lock: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let root = lock["images"][0]["root"].clone();
        let mut one = |tag: &str| {
            lock["images"][0]["evidence"] = serde_json::json!([
                {"digest": root["digest"], "tag": tag, "size": root["size"], "mediaType": root["mediaType"]}
            ]);
            lock.to_string()
        };
        written(["../evil", "a/b", "..", ".", "", "a\0"].map(&mut one))
    };
    kinds_of_nodes_that_are_none: AtOnce, [NOT_VALID], || {
        relocked("\"linux/amd64\"", &["\"../../etc\"", "\"\"", "\"linux\"", "\"windows/amd64\"", "\"linux/amd64\\u0000\""])
    };
    a_time_that_is_none: AtOnce, [NOT_VALID], || {
        [with("\"expires\": \"tomorrow\""), with("\"expires\": 1e300"), with("\"expires\": \"+999999-01-01T00:00:00Z\"")]
            .concat()
    };
    blobs_out_of_order: AtOnce, [CONTRADICTS, "not sorted"], || {
        [locked(|sample| sample.lock.blobs.reverse()), locked(|sample| sample.lock.blobs.swap(0, 1))].concat()
    };
    a_blob_that_is_listed_twice: AtOnce, [CONTRADICTS, "not sorted"], || {
        locked(|sample| sample.lock.blobs.insert(1, sample.lock.blobs[0].clone()))
    };
    an_image_that_is_listed_twice: AtOnce, [CONTRADICTS, "not sorted", LAYER], || {
        locked(|sample| sample.lock.images.insert(0, sample.lock.images[0].clone()))
    };
    a_manifest_that_is_not_carried: AtOnce, [CONTRADICTS, "not among the blobs"], || {
        let absent = dray::oci::Digest::sha256(b"absent");
        [
            locked(|sample| sample.lock.images[0].root.digest = absent.clone()),
            locked(|sample| sample.lock.images[1].children[0].digest = absent.clone()),
        ]
        .concat()
    };
    a_manifest_that_is_no_manifest_to_the_lock: AtOnce, [CONTRADICTS, "not marked as a manifest", LAYER], || {
        locked(|sample| sample.lock.blobs.iter_mut().for_each(|blob| blob.manifest = false))
    };
    a_manifest_of_another_size: AtOnce, [CONTRADICTS, "not among the blobs"], || {
        [locked(|sample| sample.lock.images[0].root.size += 1), locked(|sample| sample.lock.images[1].children[0].size = 0)]
            .concat()
    };
    a_layer_that_is_nowhere: AtOnce, [CONTRADICTS, "which is nowhere", LAYER], || {
        locked(|sample| sample.lock.images[0].blobs.push(dray::oci::Digest::sha256(b"absent")))
    };
    a_blob_that_is_carried_and_left_out: AtOnce, [CONTRADICTS, "both carried and required"], || {
        locked(|sample| {
            let blob = &sample.lock.blobs[0];
            let required = dray::resolve::RequiredBlob { digest: blob.digest.clone(), size: blob.size };
            sample.lock.requires.push(required);
        })
    };
    a_file_that_is_nowhere: AtOnce, [CONTRADICTS, "not among the blobs"], || {
        locked(|sample| sample.lock.files[0].digest = dray::oci::Digest::sha256(b"absent"))
    };
    a_lock_of_fewer_blobs_than_there_are: AtOnce, [], || {
        let mut sample = Sample::new();
        sample.add(b"something more", false);
        let mut archive = sample.signed_by(&[crate::sample::key()]);
        let more = archive.parts.iter().position(|part| part.content == b"something more").unwrap();
        let whole = Sample::new().signed_by(&[crate::sample::key()]);
        let head = Sample::new().lock.blobs.len();
        let extra = archive.parts.remove(more);
        archive.parts = whole.parts;
        archive.parts.insert(head, extra);
        vec![archive.to_bytes()]
    };
    a_lock_of_more_blobs_than_there_are: AtOnce, [], || {
        let mut sample = Sample::new();
        sample.add(b"something more", false);
        let mut archive = sample.signed_by(&[crate::sample::key()]);
        archive.parts.retain(|part| part.content != b"something more");
        vec![archive.to_bytes()]
    };
}
