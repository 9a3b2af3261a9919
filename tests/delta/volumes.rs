//! Bundles in volumes, as a courier and a site meet them; and what is left of a damaged one.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::{
    command::Run,
    disk::SmallDisk,
    shelf,
    site::{Serve, Site, dray},
    upstream,
};

const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const UNVERIFIED: i32 = 3;
pub(crate) const INCOMPLETE: i32 = 4;

/// A bundle of twelve small images, locked, and the registry that has them.
pub(crate) struct Carrier {
    pub(crate) site: Site,
    pub(crate) upstream: Serve,
}

impl Carrier {
    pub(crate) fn new() -> Self {
        let images: Vec<String> = (1..=12).map(|n| format!("registry.k8s.io/part{n}:1.0")).collect();
        let definition = format!(
            "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {{name: plant-7}}\nspec:\n  nodes: [linux/amd64]\n  \
             images: [{}]\n",
            images.join(", ")
        );
        let site = Site::new(&definition);
        let upstream = shelf::serve(&site.path("upstream"), &images);
        site.lock(upstream.address()).succeed();
        Self { site, upstream }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.path(name)
    }

    /// Builds volumes into a directory of their own.
    pub(crate) fn volumes(&self) -> Vec<PathBuf> {
        fs::create_dir_all(self.path("usb")).unwrap();
        let mut command = self.site.build(self.upstream.address(), &self.path("usb/plant.tar"));
        let said = command.args(["--volume-size", "180kB", "--format", "json"]).succeed();
        let built: Value = serde_json::from_str(&said).unwrap();
        built["files"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().into()).collect()
    }

    pub(crate) fn import(&self, bundle: &Path) -> std::process::Command {
        self.site.import(bundle, &self.path("store"))
    }

    /// Everything that the site has, as a bundle built from it.
    fn built_from(&self, serve: &Serve) -> Vec<u8> {
        let again = self.path("again.tar");
        self.site.build(serve.address(), &again).succeed();
        fs::read(again).unwrap()
    }
}

pub(crate) fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn volumes_are_carried_verified_imported_and_served() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    assert!(volumes.len() > 2, "{volumes:?}");
    let names: Vec<_> = fs::read_dir(carrier.path("usb")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), volumes.len(), "{names:?}");
    assert!(volumes.iter().all(|path| fs::metadata(path).unwrap().len() <= 180_000));
    let whole = carrier.path("whole.tar");
    carrier.site.build(carrier.upstream.address(), &whole).succeed();

    // tar alone joins them.
    let mut tar = std::process::Command::new("sh");
    let script = "for v in \"$@\"; do tar -xOf \"$v\" bundle.part; done > joined.tar";
    tar.current_dir(carrier.path("")).args(["-c", script, "sh"]).args(&volumes).succeed();
    assert!(fs::read(carrier.path("joined.tar")).unwrap() == fs::read(&whole).unwrap());

    let mut verify = dray();
    verify.arg("verify").args(volumes.iter().rev()).arg("--trust").arg(carrier.path("plant.pub"));
    assert!(verify.succeed().contains(&format!("in {} volumes", volumes.len())));
    carrier.site.verify(&volumes[1]).arg("--rebuild").arg(carrier.path("bundle.lock")).succeed();
    let inspected = dray().args(["inspect", "--format", "json"]).arg(carrier.path("usb")).succeed();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["volumes"], volumes.len());
    assert!(dray().arg("diff").arg(&whole).arg(&volumes[0]).succeed().contains("no image differs"));

    let key = carrier.path("plant.pub");
    let usb = carrier.path("usb");
    let serve = Serve::start(&["--bundle", usb.to_str().unwrap(), "--trust", key.to_str().unwrap()]);
    assert!(carrier.built_from(&serve) == fs::read(&whole).unwrap());
    carrier.import(&usb).succeed();
    let serve = Serve::start(&["--store", carrier.path("store").to_str().unwrap()]);
    assert!(carrier.built_from(&serve) == fs::read(&whole).unwrap());
}

#[test]
fn a_volume_alone_is_checked_for_damage_and_nothing_else() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let alone = carrier.path("alone.tar");
    fs::rename(&volumes[1], &alone).unwrap();
    let said = dray().arg("verify").arg(&alone).succeed();
    assert!(said.contains("intact, volume 2 of") && said.contains("Who made it is not checked"), "{said}");
    flip(&alone, 100_000);
    dray().arg("verify").arg(&alone).fail_with(UNVERIFIED).says(&["alone.tar", "bytes 9", "are damaged"]);
    dray().arg("verify").arg(carrier.path("bundle.lock")).fail_with(USAGE).says(&["bundle.lock", "JSON"]);
    let whole = carrier.path("whole.tar");
    carrier.site.build(carrier.upstream.address(), &whole).succeed();
    dray().arg("verify").arg(&whole).fail_with(USAGE).says(&["--trust"]);
}

#[test]
fn what_is_missing_foreign_or_damaged_is_named() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let aside = carrier.path("aside.tar");
    fs::rename(&volumes[1], &aside).unwrap();
    for mut command in [carrier.site.verify(&volumes[0]), carrier.import(&carrier.path("usb"))] {
        command.fail_with(INCOMPLETE).says(&["volume 2 of", "plant-7 1 is missing", "plant.2of"]);
    }
    carrier.site.verify(&volumes[0]).fail_with(INCOMPLETE).says(&["registry.k8s.io/part"]);
    assert!(!carrier.path("store").join("imports").exists());

    // The volume of another bundle in its place.
    let other = Carrier::new();
    fs::write(
        other.path("bundle.yaml"),
        fs::read_to_string(other.path("bundle.yaml")).unwrap().replace("plant-7", "plant-8"),
    )
    .unwrap();
    other.site.lock(other.upstream.address()).succeed();
    fs::copy(&other.volumes()[1], &volumes[1]).unwrap();
    carrier.site.verify(&volumes[0]).fail_with(INCOMPLETE).says(&[
        "plant.2of",
        "another bundle's",
        "plant-8 1",
    ]);

    fs::rename(&aside, &volumes[1]).unwrap();
    flip(&volumes[1], 100_000);
    carrier.site.verify(&volumes[0]).fail_with(UNVERIFIED).says(&[
        "plant.2of",
        "at byte 9",
        "registry.k8s.io/part",
    ]);
    carrier.import(&volumes[0]).fail_with(UNVERIFIED).says(&["plant.2of", "at byte 9"]);
    flip(&volumes[1], 600);
    carrier.site.verify(&volumes[0]).fail_with(UNVERIFIED).says(&["plant.2of", "is damaged"]);
}

#[test]
fn another_signature_goes_into_the_last_volume() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let first = fs::read(&volumes[0]).unwrap();
    dray().args(["keygen", "-o"]).arg(carrier.path("second")).succeed();
    dray().arg("sign").arg(&volumes[0]).arg("--key").arg(carrier.path("second.key")).succeed();
    assert!(fs::read(&volumes[0]).unwrap() == first);
    let both = [carrier.path("second.pub")];
    carrier.site.verify(&carrier.path("usb")).arg("--trust").args(both).args(["--threshold", "2"]).succeed();
}

#[test]
fn volumes_that_do_not_fit_the_disk_are_built_when_there_is_room() {
    let carrier = Carrier::new();
    let disk = SmallDisk::mount(carrier.path("disk"), "200k");
    let build = || {
        let mut build = carrier.site.build(carrier.upstream.address(), &disk.path("plant.tar"));
        build.args(["--volume-size", "180kB"]);
        build
    };
    build().fail_with(FAILED).says(&["disk is full", "plant"]);
    disk.grow("8m");
    build().succeed();
    carrier.site.verify(&disk.path("plant.tar")).succeed();
}

#[test]
fn sizes_that_make_no_sense_are_wrong_usage() {
    let carrier = Carrier::new();
    let build = |size: &str| {
        let mut build = carrier.site.build(carrier.upstream.address(), &carrier.path("x.tar"));
        build.args(["--volume-size", size]);
        build
    };
    build("floppy").fail_with(USAGE).says(&["floppy", "700MB", "fat32"]);
    build("10kB").fail_with(USAGE).says(&["too small"]);
    assert!(!carrier.path("x.tar.partial").exists());
}

#[test]
fn whole_images_are_taken_out_of_a_damaged_bundle_and_the_rest_is_listed() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    flip(&volumes[1], 100_000);
    let usb = carrier.path("usb");
    let salvaged = carrier.import(&usb).arg("--keep-going").fail_with(INCOMPLETE);
    let missing: Vec<&str> = salvaged.stdout.lines().collect();
    assert!(!missing.is_empty() && missing.len() < 12, "{missing:?}");
    assert!(salvaged.stderr.contains(&format!("{} images", 12 - missing.len())), "{}", salvaged.stderr);

    // What is served is whole, and nothing else is served.
    let serve = Serve::start(&["--store", carrier.path("store").to_str().unwrap()]);
    for n in 1..=12 {
        let reference = format!("registry.k8s.io/part{n}:1.0");
        let target = format!("dir:{}", carrier.path(&format!("pulled{n}")).display());
        let mut skopeo = std::process::Command::new("skopeo");
        skopeo.args(["copy", "-q", "--src-tls-verify=false", "--override-os", "linux"]);
        skopeo.args([&serve.docker(&reference), &target]);
        assert_eq!(skopeo.finish().code == 0, !missing.contains(&&*reference), "{reference}");
    }
    drop(serve);

    // The list is what a definition takes on the other side.
    let list = carrier.path("wants.txt");
    carrier.import(&usb).args(["--keep-going", "-o"]).arg(&list).fail_with(INCOMPLETE);
    assert_eq!(fs::read_to_string(&list).unwrap(), salvaged.stdout);
    let definition = "apiVersion: dray.dev/v1alpha1\nkind: Bundle\nmetadata: {name: rest}\nspec:\n  nodes: [linux/amd64]\n  \
                      imageLists: [wants.txt]\n";
    fs::write(carrier.path("rest.yaml"), definition).unwrap();
    let mut lock = dray();
    lock.args(["lock", "-f"]).arg(carrier.path("rest.yaml")).arg("-o").arg(carrier.path("rest.lock"));
    lock.args(upstream::flags(carrier.upstream.address())).succeed();
    let rest: Value = serde_json::from_slice(&fs::read(carrier.path("rest.lock")).unwrap()).unwrap();
    assert_eq!(rest["images"].as_array().unwrap().len(), missing.len());

    // Without a whole volume nearly nothing is left.
    let (aside, other) = (carrier.path("aside.tar"), carrier.path("other"));
    fs::rename(&volumes[1], &aside).unwrap();
    let salvaged = carrier.site.import(&usb, &other).arg("--keep-going").fail_with(INCOMPLETE);
    assert!(salvaged.stdout.lines().count() > missing.len(), "{}", salvaged.stdout);
    fs::rename(&aside, &volumes[1]).unwrap();

    // The log says so, and a whole copy completes it.
    let mut log = dray();
    log.args(["log", "list", "--store"]).arg(carrier.path("store"));
    assert_eq!(log.succeed().matches("partial").count(), 2);
    flip(&volumes[1], 100_000);
    carrier.import(&usb).args(["--keep-going"]).succeed();
    assert_eq!(log.succeed().matches("partial").count(), 2);
    dray().args(["log", "verify", "--store"]).arg(carrier.path("store")).succeed();
    let whole = carrier.path("whole.tar");
    carrier.site.build(carrier.upstream.address(), &whole).succeed();
    let serve = Serve::start(&["--store", carrier.path("store").to_str().unwrap()]);
    assert!(carrier.built_from(&serve) == fs::read(&whole).unwrap());
}

#[test]
fn nothing_is_taken_without_the_end_of_the_bundle_or_a_signature() {
    let carrier = Carrier::new();
    let volumes = carrier.volumes();
    let last = volumes.last().unwrap();
    let len = fs::metadata(last).unwrap().len();
    let stranger = Carrier::new();
    let mut import = dray();
    import.arg("import").arg(&volumes[0]).arg("--store").arg(carrier.path("store")).arg("--keep-going");
    import.arg("--trust").arg(stranger.path("plant.pub")).fail_with(UNVERIFIED).says(&["signed"]);
    flip(last, len - 2000);
    carrier
        .import(&volumes[0])
        .arg("--keep-going")
        .fail_with(UNVERIFIED)
        .says(&["the lock and the signatures", last.to_str().unwrap()]);
    fs::remove_file(last).unwrap();
    carrier
        .import(&volumes[0])
        .arg("--keep-going")
        .fail_with(INCOMPLETE)
        .says(&["is missing", "without its end"]);
    assert!(!carrier.path("store").join("imports").exists());
}

#[test]
fn what_was_lost_on_the_way_is_made_again() {
    let carrier = Carrier::new();
    fs::create_dir(carrier.path("usb")).unwrap();
    let output = carrier.path("usb/plant.tar");
    let mut build = carrier.site.build(carrier.upstream.address(), &output);
    build.args(["--volume-size", "180kB", "--parity", "60%"]).succeed();
    let usb = carrier.path("usb");
    let names = || {
        let mut names: Vec<PathBuf> = fs::read_dir(&usb).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names
    };
    let before: Vec<(PathBuf, Vec<u8>)> =
        names().into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    let is_parity = |path: &Path| path.to_str().unwrap().contains(".parity.");
    assert!(before.iter().filter(|(path, _)| is_parity(path)).count() > 1, "{:?}", names());
    // Parity beside the volumes bothers nobody.
    carrier.site.verify(&usb).succeed();
    assert!(dray().arg("repair").arg(&usb).succeed().contains("nothing is damaged"));

    // Files of both kinds are lost in their turn, and others have a bad sector.
    for (nth, (lost, _)) in before.iter().enumerate().step_by(before.len() / 4) {
        fs::remove_file(lost).unwrap();
        let other = &before[(nth + 1) % before.len()].0;
        flip(other, fs::metadata(other).unwrap().len() / 2);
        let mut repair = dray();
        repair.arg("repair").arg(&usb);
        let said = repair.succeed();
        assert_eq!(
            said.contains("recovery files were made again"),
            is_parity(lost) || is_parity(other),
            "{said}"
        );
        for (path, bytes) in &before {
            assert!(fs::read(path).unwrap() == *bytes, "{}", path.display());
        }
        carrier.site.verify(&usb).succeed();
        assert!(dray().arg("repair").arg(&usb).succeed().ends_with("nothing is damaged\n"));
    }
    assert_eq!(names().len(), before.len());

    // Too much is lost: it says so, changes nothing, and the whole images can still be had.
    fs::remove_file(&before[0].0).unwrap();
    let parity: Vec<&PathBuf> = before.iter().map(|(path, _)| path).filter(|path| is_parity(path)).collect();
    parity[1..].iter().for_each(|path| fs::remove_file(path).unwrap());
    dray().arg("repair").arg(&usb).fail_with(UNVERIFIED).says(&["too much", "--keep-going"]);
    fs::remove_file(parity[0]).unwrap();
    dray().arg("repair").arg(&usb).fail_with(INCOMPLETE).says(&["no recovery file", "--keep-going"]);
    carrier.import(&usb).arg("--keep-going").fail_with(INCOMPLETE);
}

#[test]
fn a_recovery_file_alone_is_checked_as_a_volume_is() {
    let carrier = Carrier::new();
    let bundle = carrier.path("plant.tar");
    let mut build = carrier.site.build(carrier.upstream.address(), &bundle);
    build.args(["--parity", "10%"]).succeed();
    fs::create_dir(carrier.path("alone")).unwrap();
    let alone = carrier.path("alone/plant.parity.1of1.tar");
    fs::rename(carrier.path("plant.parity.1of1.tar"), &alone).unwrap();
    let said = dray().arg("verify").arg(&alone).succeed();
    assert!(said.contains("intact, recovery file 1 of 1 of plant-7 1, "), "{said}");
    assert!(said.contains("Who made it is not checked"), "{said}");
    let json = dray().args(["verify", "--format", "json"]).arg(&alone).succeed();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["intact"], &json[0]["number"]), (&Value::Bool(true), &Value::from(1)), "{json}");
    let len = fs::metadata(&alone).unwrap().len();
    for at in [5, 600, len / 2, len - 3000, len - 1] {
        flip(&alone, at);
        dray().arg("verify").arg(&alone).fail_with(UNVERIFIED).says(&[
            "alone/plant.parity",
            "bytes ",
            "damaged",
        ]);
        flip(&alone, at);
    }
    fs::OpenOptions::new().write(true).open(&alone).unwrap().set_len(len - 700).unwrap();
    dray().arg("verify").arg(&alone).fail_with(UNVERIFIED).says(&["alone/plant.parity", "bytes "]);
}

#[test]
fn a_single_bundle_is_repaired_and_shares_that_make_no_sense_are_wrong_usage() {
    let carrier = Carrier::new();
    let bundle = carrier.path("plant.tar");
    let mut build = carrier.site.build(carrier.upstream.address(), &bundle);
    build.args(["--parity", "10"]).fail_with(USAGE).says(&["1% to 100%"]);
    let mut build = carrier.site.build(carrier.upstream.address(), &bundle);
    build.args(["--parity", "10%"]).succeed();
    let good = fs::read(&bundle).unwrap();
    let mut bytes = good.clone();
    let start = bytes.len() / 3;
    let share = bytes.len() / 11;
    bytes[start..start + share].fill(0);
    fs::write(&bundle, &bytes).unwrap();
    carrier.site.verify(&bundle).fail_with(UNVERIFIED);
    assert!(dray().arg("repair").arg(&bundle).succeed().contains("whole again"));
    assert!(fs::read(&bundle).unwrap() == good);
    carrier.site.verify(&bundle).succeed();
    dray()
        .arg("verify")
        .arg(carrier.path("plant.parity.1of1.tar"))
        .arg("--trust")
        .arg(carrier.path("plant.pub"))
        .fail_with(FAILED);
}
