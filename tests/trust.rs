//! Who signed what: keys with passphrases and keys that never leave their device, two people who release together, and
//! programs that are not ours verifying what the registry offers.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use support::{
    command::Run,
    site::{Serve, Site, dray, files_below},
    upstream,
};

const USAGE: i32 = 2;
const UNVERIFIED: i32 = 3;

const DEFINITION: &str = "\
apiVersion: dray.dev/v1alpha1
kind: Bundle
metadata:
  name: plant-7
spec:
  nodes: [linux/amd64]
  images: [quay.io/k0sproject/coredns:1.11.3]
";

/// A bundle that `plant.key` signed.
fn signed() -> (Site, PathBuf) {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    let bundle = site.bundle(upstream.address());
    (site, bundle)
}

fn openssl(arguments: &[&str]) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments);
    openssl
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn digest_of(bundle: &Path) -> String {
    let inspected = dray().args(["inspect", "--format", "json"]).arg(bundle).succeed();
    json(&inspected)["digest"].as_str().unwrap().to_owned()
}

/// `dray verify` with these public keys, of which so many must have signed.
fn verify(bundle: &Path, keys: &[&Path], threshold: usize) -> Command {
    let mut verify = dray();
    verify.arg("verify").arg(bundle).args(["--threshold", &threshold.to_string()]);
    for key in keys {
        verify.arg("--trust").arg(key);
    }
    verify
}

/// Reads `path` from a registry.
fn get(address: &str, path: &str) -> Vec<u8> {
    let url = format!("http://{address}/v2/bundles.dray.dev/plant-7/{path}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = reqwest::get(url).await.unwrap().error_for_status().unwrap();
        response.bytes().await.unwrap().to_vec()
    })
}

/// The only Sigstore bundle that refers to `digest`, found as clients find it.
fn sigstore_bundle(address: &str, digest: &str) -> Value {
    let read = |path: &str| json(&String::from_utf8(get(address, path)).unwrap());
    let referrers = read(&format!("referrers/{digest}"));
    let [referrer] = &referrers["manifests"].as_array().unwrap()[..] else { panic!("{referrers}") };
    assert_eq!(referrer["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    let manifest = read(&format!("manifests/{}", referrer["digest"].as_str().unwrap()));
    assert_eq!(manifest["subject"]["digest"], digest);
    read(&format!("blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap()))
}

/// Panics unless openssl finds `signature` to be that of `message` by `key`.
#[track_caller]
fn openssl_verifies(site: &Site, key: &Path, message: &[u8], signature: &[u8]) {
    let (message_file, signature_file) = (site.path("openssl.message"), site.path("openssl.signature"));
    fs::write(&message_file, message).unwrap();
    fs::write(&signature_file, signature).unwrap();
    let said = openssl(&["dgst", "-sha256", "-verify"])
        .arg(key)
        .arg("-signature")
        .args([&signature_file, &message_file])
        .succeed();
    assert_eq!(said, "Verified OK\n");
}

#[test]
fn a_key_with_a_passphrase_opens_with_it_only() {
    let (site, bundle) = signed();
    let key = site.path("guarded.key");
    dray()
        .args(["keygen", "--passphrase", "-o"])
        .arg(site.path("guarded"))
        .env("DRAY_KEY_PASSPHRASE", "short")
        .fail_with(USAGE)
        .says(&["fewer than 8"]);
    assert!(!key.exists());
    dray()
        .args(["keygen", "--passphrase", "-o"])
        .arg(site.path("guarded"))
        .env("DRAY_KEY_PASSPHRASE", "correct horse")
        .succeed();
    openssl(&["pkey", "-noout", "-passin", "pass:correct horse", "-in"]).arg(&key).succeed();

    let sign = |passphrase: Option<&str>| {
        let mut sign = dray();
        sign.arg("sign").arg(&bundle).arg("--key").arg(&key).stdin(std::process::Stdio::null());
        sign.envs(passphrase.map(|passphrase| ("DRAY_KEY_PASSPHRASE", passphrase)));
        sign
    };
    sign(None).fail_with(USAGE).says(&["DRAY_KEY_PASSPHRASE"]);
    sign(Some("battery staple")).fail_with(USAGE).says(&["guarded.key", "passphrase does not open"]);
    sign(Some("correct horse")).succeed();
    verify(&bundle, &[&site.path("plant.pub"), &site.path("guarded.pub")], 2).succeed();
}

#[test]
fn a_key_that_openssl_encrypted_is_taken() {
    let (site, bundle) = signed();
    let (plain, key, public) = (site.path("plain.pem"), site.path("theirs.key"), site.path("theirs.pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(&plain).succeed();
    openssl(&["pkcs8", "-topk8", "-passout", "pass:correct horse", "-in"])
        .arg(&plain)
        .arg("-out")
        .arg(&key)
        .succeed();
    openssl(&["ec", "-pubout", "-in"]).arg(&plain).arg("-out").arg(&public).succeed();
    dray()
        .arg("sign")
        .arg(&bundle)
        .arg("--key")
        .arg(&key)
        .env("DRAY_KEY_PASSPHRASE", "correct horse")
        .succeed();
    verify(&bundle, &[&public], 1).succeed();
}

#[test]
fn a_device_signs_and_keeps_its_key() {
    let (site, bundle) = signed();
    let before = fs::read(&bundle).unwrap();
    let (key, public) = (site.path("device.key"), site.path("device.pub"));
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(&key)
        .succeed();
    openssl(&["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public).succeed();

    let (payload, statement) = (site.path("payload"), site.path("statement"));
    dray()
        .arg("sign")
        .arg(&bundle)
        .arg("--payload-out")
        .arg(&payload)
        .arg("--statement-out")
        .arg(&statement)
        .succeed();
    assert_eq!(fs::read(&bundle).unwrap(), before);
    let sign = |message: &Path, signature: &Path| {
        openssl(&["dgst", "-sha256", "-sign"]).arg(&key).arg("-out").args([signature, message]).succeed();
    };
    let (signature, statement_signature) = (site.path("payload.sig"), site.path("statement.sig"));
    sign(&payload, &signature);
    sign(&statement, &statement_signature);

    let attach = |signature: &Path, public: &Path| {
        let mut attach = dray();
        attach.arg("sign").arg(&bundle).arg("--signature").arg(signature);
        attach.arg("--public-key").arg(public).arg("--statement-signature").arg(&statement_signature);
        attach
    };
    attach(&signature, &site.path("plant.pub")).fail_with(UNVERIFIED).says(&["no signature of the bundle"]);
    attach(&statement_signature, &public).fail_with(UNVERIFIED);
    assert_eq!(fs::read(&bundle).unwrap(), before, "a refused signature must not change the bundle");

    let encoded = site.path("payload.sig.b64");
    fs::write(&encoded, STANDARD.encode(fs::read(&signature).unwrap())).unwrap();
    attach(&encoded, &public).succeed();
    verify(&bundle, &[&public, &site.path("plant.pub")], 2).succeed();
}

#[test]
fn two_people_release_together() {
    let (site, bundle) = signed();
    let (first, second) = (site.path("plant.pub"), site.path("second.pub"));
    dray().args(["keygen", "-o"]).arg(site.path("second")).succeed();
    let store = site.path("store");
    let import = |keys: &[&Path]| {
        let mut import = dray();
        import.args(["import", "--threshold", "2"]).arg(&bundle).arg("--store").arg(&store);
        for key in keys {
            import.arg("--trust").arg(key);
        }
        import
    };
    import(&[&first, &second]).fail_with(UNVERIFIED).says(&["1 of 2"]);
    assert!(!store.exists(), "a refused import must not make a store");
    import(&[&first]).fail_with(USAGE).says(&["only 1 trusted"]);
    import(&[&first, &first]).fail_with(USAGE).says(&["only 1 trusted"]);

    // Signing twice is not signing by two.
    dray().arg("sign").arg(&bundle).arg("--key").arg(site.path("plant.key")).succeed();
    import(&[&first, &second]).fail_with(UNVERIFIED).says(&["1 of 2"]);
    dray().arg("sign").arg(&bundle).arg("--key").arg(site.path("second.key")).succeed();
    import(&[&first, &second]).succeed();
}

#[test]
fn a_directory_of_keys_says_which_roles_approve() {
    let (site, bundle) = signed();
    let keys = site.path("keys");
    fs::create_dir(&keys).unwrap();
    fs::copy(site.path("plant.pub"), keys.join("builder.pub")).unwrap();
    dray().args(["keygen", "-o"]).arg(site.path("officer")).succeed();
    fs::copy(site.path("officer.pub"), keys.join("officer.pub")).unwrap();
    verify(&bundle, &[&keys], 1).succeed();

    let rule = "apiVersion: dray.dev/v1alpha1\nkind: TrustPolicy\nroles:\n  release: {keys: [builder]}\n  security: {keys: [officer]}\n";
    fs::write(keys.join("policy.yaml"), rule).unwrap();
    verify(&bundle, &[&keys], 1).fail_with(UNVERIFIED).says(&["`security`"]);
    dray().arg("sign").arg(&bundle).arg("--key").arg(site.path("officer.key")).succeed();
    verify(&bundle, &[&keys], 1).succeed();
    fs::write(keys.join("policy.yaml"), rule.replace("[officer]", "[nobody]")).unwrap();
    verify(&bundle, &[&keys], 1).fail_with(USAGE).says(&["policy.yaml", "nobody.pub"]);
}

#[test]
fn openssl_verifies_what_the_registry_offers() {
    let (site, bundle) = signed();
    let digest = digest_of(&bundle);
    let key = site.path("plant.pub");
    let store = site.path("store");
    site.import(&bundle, &store).succeed();
    let from_store = Serve::start(&["--store", store.to_str().unwrap()]);
    let from_bundle = Serve::start(&["--bundle", bundle.to_str().unwrap(), "--trust", key.to_str().unwrap()]);
    for serve in [&from_store, &from_bundle] {
        let address = serve.address();

        // Simple signing: cosign 1 to 3, containers/image.
        let tag = digest.replace(':', "-") + ".sig";
        let manifest = json(&String::from_utf8(get(address, &format!("manifests/{tag}"))).unwrap());
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
        let payload = get(address, &format!("blobs/{}", layer["digest"].as_str().unwrap()));
        let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
        openssl_verifies(&site, &key, &payload, &STANDARD.decode(signature).unwrap());
        let payload = json(&String::from_utf8(payload).unwrap());
        assert_eq!(payload["critical"]["image"]["docker-manifest-digest"], digest.as_str());
        assert_eq!(payload["critical"]["identity"]["docker-reference"], "bundles.dray.dev/plant-7");

        // A Sigstore bundle among the referrers: cosign 3, policy controllers.
        let sigstore = sigstore_bundle(address, &digest);
        let envelope = &sigstore["dsseEnvelope"];
        let statement = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let payload_type = envelope["payloadType"].as_str().unwrap();
        let mut signed =
            format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), statement.len()).into_bytes();
        signed.extend_from_slice(&statement);
        let signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        openssl_verifies(&site, &key, &signed, &signature);
        let statement = json(&String::from_utf8(statement).unwrap());
        assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.strip_prefix("sha256:").unwrap());
        // cosign names a key by the SHA-256 of its DER encoding, in base64.
        let der = site.path("plant.der");
        openssl(&["pkey", "-pubin", "-outform", "DER", "-in"]).arg(&key).arg("-out").arg(&der).succeed();
        let name = openssl(&["dgst", "-sha256", "-binary"]).arg(&der).output().unwrap().stdout;
        assert_eq!(sigstore["verificationMaterial"]["publicKey"]["hint"], STANDARD.encode(name));
    }
}

#[test]
fn every_import_leaves_a_receipt_that_nobody_can_change() {
    let (site, bundle) = signed();
    let (store, receipts) = (site.path("store"), site.path("receipts"));
    dray().args(["keygen", "-o"]).arg(site.path("site")).succeed();
    let import = |trust: &[&str]| {
        let mut import = dray();
        import.arg("import").arg(&bundle).arg("--store").arg(&store).args(trust);
        import.arg("--receipt-key").arg(site.path("site.key")).arg("--receipt").arg(&receipts);
        import
    };
    let key = site.path("plant.pub");
    import(&["--trust", key.to_str().unwrap()]).succeed();
    import(&["--insecure-skip-verify"]).succeed();

    let (first, signature) = (receipts.join("000001-plant-7.json"), receipts.join("000001-plant-7.json.sig"));
    openssl_verifies(
        &site,
        &site.path("site.pub"),
        &fs::read(&first).unwrap(),
        &fs::read(signature).unwrap(),
    );
    let record = json(&fs::read_to_string(&first).unwrap());
    assert_eq!((&record["name"], &record["verificationSkipped"]), (&"plant-7".into(), &false.into()));
    assert_eq!(record["verifiedBy"].as_array().unwrap().len(), 1);
    let second = receipts.join("000002-plant-7.json");
    let record = json(&fs::read_to_string(&second).unwrap());
    assert_eq!((&record["number"], &record["verificationSkipped"]), (&2.into(), &true.into()));

    let check = || {
        let mut verify = dray();
        verify.args(["log", "verify", "--store"]).arg(&store).arg("--trust").arg(site.path("site.pub"));
        verify.arg("--receipt").arg(&second);
        verify
    };
    assert!(check().succeed().contains("2 receipts, 2 signed"));
    let list = dray().args(["log", "list", "--store"]).arg(&store).succeed();
    assert!(list.contains("no verification"), "{list}");

    let receipt = |number: &str| {
        let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(number);
        let mut files = files_below(&store.join("imports")).into_iter();
        files
            .find(|path| named(path) && path.extension().is_some_and(|extension| extension == "json"))
            .unwrap()
    };
    let kept = receipt("000001-");
    let good = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, good.replace("\"images\":1", "\"images\":2")).unwrap();
    check().fail_with(UNVERIFIED).says(&["receipt 1", "put the files back", "accept-damage"]);
    fs::write(&kept, good).unwrap();
    let newest = receipt("000002-");
    fs::remove_file(&newest).unwrap();
    check().fail_with(UNVERIFIED).says(&["is not in the log"]);
    fs::copy(&second, &newest).unwrap();
    check().succeed();
}

#[test]
fn going_back_and_expired_bundles_are_refused_or_recorded() {
    let upstream = upstream::start();
    let definition =
        |metadata: &str| DEFINITION.replace("name: plant-7", &format!("name: plant-7\n{metadata}"));
    let site = Site::new(&definition("  sequence: 2"));
    let store = site.path("store");
    site.import(&site.bundle(upstream.address()), &store).succeed();

    let past = "  sequence: 1\n  expires: 2020-01-31";
    fs::write(site.path("bundle.yaml"), definition(past)).unwrap();
    // It was made in time: what has expired is refused already on the connected side.
    let library = Command::new("sh").args(["-c", "dpkg -L libfaketime | grep -F libfaketimeMT.so"]).succeed();
    let in_time = |command: &mut Command| {
        command.env("LD_PRELOAD", library.trim()).env("FAKETIME", "2020-01-01 12:00:00").succeed();
    };
    in_time(&mut site.lock(upstream.address()));
    let old = site.path("old.tar");
    in_time(&mut site.build(upstream.address(), &old));
    site.verify(&old).fail_with(UNVERIFIED).says(&["expired at 2020-02-01T00:00:00Z", "--allow-expired"]);
    site.verify(&old).arg("--allow-expired").succeed();
    site.import(&old, &store).fail_with(UNVERIFIED).says(&["expired"]);
    site.import(&old, &store).arg("--allow-expired").fail_with(UNVERIFIED).says(&["--allow-rollback"]);
    site.import(&old, &store).args(["--allow-expired", "--allow-rollback"]).succeed();
    let list = json(&dray().args(["log", "list", "--format", "json", "--store"]).arg(&store).succeed());
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert_eq!((&list[0]["rollback"], &list[0]["expired"]), (&false.into(), &false.into()));
    assert_eq!((&list[1]["rollback"], &list[1]["expired"]), (&true.into(), &true.into()));
    dray().args(["log", "verify", "--store"]).arg(&store).succeed();
}

/// The library of Sigstore itself, from npm.
#[test]
#[ignore = "wants node and npm packages: tests/run sigstore"]
fn sigstore_s_own_library_verifies_it() {
    let (site, bundle) = signed();
    let serve = Serve::start(&["--bundle", bundle.to_str().unwrap(), "--insecure-skip-verify"]);
    let file = site.path("sigstore.json");
    fs::write(&file, sigstore_bundle(serve.address(), &digest_of(&bundle)).to_string()).unwrap();
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sigstore");
    let verify = |key: &Path| {
        let mut node = Command::new("node");
        node.current_dir(&modules).arg("verify.mjs").arg(&file).arg(key);
        node
    };
    assert_eq!(verify(&site.path("plant.pub")).succeed(), "verified\n");
    dray().args(["keygen", "-o"]).arg(site.path("stranger")).succeed();
    verify(&site.path("stranger.pub")).fail_with(1).says(&["signature verification failed"]);
}

#[test]
fn the_order_of_signing_leaves_no_trace() {
    let upstream = upstream::start();
    let site = Site::new(DEFINITION);
    dray().args(["keygen", "-o"]).arg(site.path("second")).succeed();
    site.lock(upstream.address()).succeed();
    let signed = |name: &str, keys: [&str; 2]| {
        let bundle = site.path(name);
        let mut build = dray();
        build.args(["build", "--lock"]).arg(site.path("bundle.lock")).arg("-o").arg(&bundle);
        build.arg("--key").arg(site.path(keys[0])).args(upstream::flags(upstream.address())).succeed();
        dray().arg("sign").arg(&bundle).arg("--key").arg(site.path(keys[1])).succeed();
        fs::read(&bundle).unwrap()
    };
    let (a, b) = (signed("a.tar", ["plant.key", "second.key"]), signed("b.tar", ["second.key", "plant.key"]));
    assert!(a == b, "the bundles differ");
}

#[test]
fn receipt_that_cannot_be_read_stops_an_older_bundle() {
    let upstream = upstream::start();
    let definition =
        |sequence| DEFINITION.replace("name: plant-7", &format!("name: plant-7\n  sequence: {sequence}"));
    let site = Site::new(&definition(1));
    let store = site.path("store");
    let (older, newer) = (site.path("older.tar"), site.path("newer.tar"));
    for (sequence, bundle) in [(1, &older), (2, &newer)] {
        fs::write(site.path("bundle.yaml"), definition(sequence)).unwrap();
        fs::rename(site.bundle(upstream.address()), bundle).unwrap();
    }
    site.import(&newer, &store).succeed();
    let receipt = files_below(&store.join("imports")).pop().unwrap();
    let good = fs::read(&receipt).unwrap();
    let prune = || {
        let mut prune = dray();
        prune.args(["prune", "--keep", "k0s@v1.36.3+k0s.2", "--store"]).arg(&store);
        prune
    };
    for damaged in [&b""[..], &good[..good.len() / 2], br#"{"version":9,"kind":"import"}"#] {
        fs::write(&receipt, damaged).unwrap();
        let name = receipt.file_name().unwrap().to_str().unwrap();
        for flags in [&[][..], &["--allow-rollback"]] {
            let refused = site.import(&older, &store).args(flags).fail_with(UNVERIFIED);
            refused.says(&[name, "put the files back", "dray log accept-damage"]);
        }
        prune().fail_with(UNVERIFIED).says(&[name]);
        dray().args(["log", "list", "--store"]).arg(&store).fail_with(UNVERIFIED).says(&[name]);
    }
    // Nodes are served as before.
    drop(Serve::start(&["--store", store.to_str().unwrap()]));

    let mut accept = dray();
    accept.args(["log", "accept-damage", "--store"]).arg(&store);
    assert!(accept.succeed().contains("given up: imports/"));
    assert!(accept.succeed().contains("no receipt is damaged"));
    site.import(&older, &store).succeed();
    let list = dray().args(["log", "list", "--store"]).arg(&store).succeed();
    assert!(list.contains("1 receipt given up") && list.contains("damage"), "{list}");
    let verified = dray().args(["log", "verify", "--store"]).arg(&store).succeed();
    assert!(verified.contains("2 receipts") && verified.contains("1 damaged or lost"), "{verified}");
    // What was given up counts again once it is back.
    fs::write(&receipt, &good).unwrap();
    let list = json(&dray().args(["log", "list", "--format", "json", "--store"]).arg(&store).succeed());
    assert_eq!(list.as_array().unwrap().len(), 3);
}
