//! All attacks one after another, against the library and through the commands, with the count that the documentation
//! quotes.

use std::{collections::BTreeSet, path::Path, process::Command};

use dray::resolve::NeededBy;

use super::bench::{Attack, Bench, Sight, locked};
use super::{contents, documents, entries, locks, trust};
use crate::support::{command::Run, site::dray};

/// The exit code of what was not verified.
const UNVERIFIED: i32 = 3;

fn all() -> Vec<&'static Attack> {
    let tables = [entries::ATTACKS, contents::ATTACKS, documents::ATTACKS, locks::ATTACKS, trust::ATTACKS];
    tables.into_iter().flatten().collect()
}

#[test]
fn every_attack_is_refused() {
    let mut bench = Bench::new();
    let names: BTreeSet<&str> = all().iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), all().len(), "two attacks have the same name");
    let mut files = 0;
    for attack in all() {
        files += bench.refuses(attack);
        if matches!(attack.sight, Sight::InContent | Sight::InManifests) {
            // What was good of it is in the store now, and would be taken from there.
            bench = Bench::new();
        }
    }
    // Somebody who refuses everything would pass all of this.
    let path = bench.write(&locked(|_| ())[0]);
    bench.import(&path, Sight::AtOnce).unwrap();
    println!("attacks tried and refused: {} ({files} files)", all().len());
}

/// One file of each attack, given to the program.
#[test]
fn the_commands_refuse_with_code_3_and_name_the_file() {
    let mut bench = Bench::new();
    let command = |bench: &Bench, name: &str, path: &Path, attack: &Attack| -> Command {
        let mut command = dray();
        command.arg(name);
        match name {
            "serve" => command.args(["--listen", "127.0.0.1:0", "--bundle"]).arg(path),
            "import" => command.arg(path).arg("--store").arg(bench.store().path()),
            _ => command.arg(path),
        };
        command.arg("--trust").arg(bench.path("release.pub"));
        if attack.sight == Sight::TwoPeople {
            command.arg("--trust").arg(bench.path("second.pub")).args(["--threshold", "2"]);
        }
        command
    };
    for attack in all() {
        let before = bench.fingerprint();
        let path = bench.write(&(attack.make)()[0]);
        let seen_by: &[&str] = match attack.sight {
            Sight::AtOnce | Sight::TwoPeople => &["verify", "import", "serve"],
            Sight::InContent | Sight::InTime => &["verify", "import"],
            Sight::InManifests => &["import", "serve"],
            Sight::InStore => &["import"],
            Sight::BesideContent => &["verify"],
        };
        for name in seen_by {
            let finished = command(&bench, name, &path, attack).finish();
            assert_eq!(finished.code, UNVERIFIED, "{}: {name}: {}", attack.name, finished.stderr);
            if *name != "serve" {
                finished.says(attack.says);
            }
        }
        if matches!(attack.sight, Sight::InContent | Sight::InManifests) {
            bench = Bench::new();
        } else {
            assert!(bench.fingerprint() == before, "{} changed the store", attack.name);
        }
    }
}

/// `inspect` shows what nobody has verified yet: it must not steer the terminal that shows it.
#[test]
fn what_a_bundle_says_of_itself_does_not_steer_the_terminal() {
    let bench = Bench::new();
    let path = bench.write(
        &locked(|sample| {
            sample.lock.releases[0].release = "k0s@v1\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}".into();
            sample.lock.images[0].needed_by = vec![NeededBy::list("\u{9b}31m\r")];
        })[0],
    );
    let said = dray().args(["inspect", "--images"]).arg(&path).succeed();
    assert!(said.contains("k0s@v1\u{fffd}]0;owned"), "{said}");
    assert!(!said.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{said:?}");
}
