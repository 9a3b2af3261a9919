//! What parity restores, what it cannot, and recovery files that lie.

use super::volumes::{SIZE, noise};
use super::*;
use crate::bundle::parity::Recovery;
use crate::file;

/// The blocks of the bundle below, and the recovery blocks of 20 %: 13, and one more.
const BLOCKS: usize = 62;
const MADE: usize = 14;
const BLOCK: u64 = 4096;

/// A signed bundle with parity, in one file or in volumes.
pub(super) struct Protected {
    dir: tempfile::TempDir,
    key: PrivateKey,
    pub(super) paths: Vec<PathBuf>,
    pub(super) good: Vec<Vec<u8>>,
}

impl Protected {
    fn with(share: &str, volume_size: Option<VolumeSize>) -> Self {
        Self::of(&noise(250_000), share, volume_size)
    }

    pub(super) fn of(layer: &[u8], share: &str, volume_size: Option<VolumeSize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (lock, key) = (sample(MANIFEST, layer), PrivateKey::generate());
        let source = Source::of(&[MANIFEST, layer]);
        let options = BuildOptions {
            output: &dir.path().join("a.tar"),
            inputs: &Inputs::default(),
            mtime: 0,
            concurrency: 2,
            keys: std::slice::from_ref(&key),
            volume_size,
            parity: Some(share.parse().unwrap()),
            progress: &|_| (),
        };
        let paths = block_on(build(&lock, &source, &options)).unwrap().paths;
        let good = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        Self { dir, key, paths, good }
    }

    pub(super) fn single() -> Self {
        Self::with("20%", None)
    }

    pub(super) fn volumes() -> Self {
        Self::with("20%", Some(VolumeSize::from_bytes(SIZE)))
    }

    fn repair(&self) -> Result<Repaired, RepairError> {
        repair(&[self.dir.path().to_owned()], 2, &Making::default(), &|_| ())
    }

    /// Repairs, and makes sure that every file is what it was, and that there is nothing more to repair.
    #[track_caller]
    pub(super) fn is_restored(&self) -> Repaired {
        let repaired = self.repair().unwrap_or_else(|error| panic!("{error}"));
        for (path, good) in self.paths.iter().zip(&self.good) {
            assert!(std::fs::read(path).unwrap() == *good, "{}", path.display());
        }
        assert!(names(self.dir.path()).iter().all(|name| !name.ends_with(".repair")));
        verify(&self.paths[0], &self.key).unwrap();
        self.recovery().for_each(|path| Recovery::open(path).unwrap().unwrap().verify(&|_| ()).unwrap());
        let again = self.repair().unwrap();
        assert!(again.files.is_empty() && again.recovery.is_empty());
        repaired
    }

    fn recovery(&self) -> impl Iterator<Item = &PathBuf> {
        self.paths.iter().filter(|path| path.to_str().unwrap().contains("parity"))
    }

    fn restore_all(&self) {
        for (path, good) in self.paths.iter().zip(&self.good) {
            std::fs::write(path, good).unwrap();
        }
    }

    /// Changes `len` bytes of a file.
    pub(super) fn spoil(&self, nth: usize, at: u64, len: usize) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&self.paths[nth]).unwrap();
        let mut bytes = vec![0; len];
        file::read_exact_at(&file, &mut bytes, at).unwrap();
        for byte in &mut bytes {
            *byte ^= 0x5a;
        }
        file::write_all_at(&file, &bytes, at).unwrap();
    }
}

#[test]
fn scattered_damage_is_repaired_up_to_the_share_and_not_beyond() {
    let protected = Protected::single();
    assert_eq!(names(protected.dir.path()), ["a.parity.1of1.tar", "a.tar"]);
    assert!(protected.is_restored().files.is_empty());
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..4 {
        let mut blocks: Vec<u64> = (0..BLOCKS as u64 - 1).collect();
        random.shuffle(&mut blocks);
        for nth in &blocks[..MADE] {
            protected.spoil(0, nth * BLOCK + random.u64(..BLOCK - 20), 20);
        }
        let repaired = protected.is_restored();
        assert_eq!((repaired.blocks, repaired.files.len(), repaired.recovery.len()), (MADE, 1, 0));
        for nth in &blocks[..=MADE] {
            protected.spoil(0, nth * BLOCK, 1);
        }
        let before = std::fs::read(&protected.paths[0]).unwrap();
        let error = protected.repair().unwrap_err();
        assert!(
            matches!(error, RepairError::TooMuch { lost, left: MADE, .. } if lost == MADE + 1),
            "{error}"
        );
        assert!(std::fs::read(&protected.paths[0]).unwrap() == before, "what is there stays");
        protected.restore_all();
    }
}

#[test]
fn a_zeroed_range_a_cut_file_and_a_lost_tail_are_repaired() {
    let protected = Protected::single();
    let len = protected.good[0].len();
    for at in (0..len - 48_000).step_by(37_011) {
        std::fs::write(
            &protected.paths[0],
            [&protected.good[0][..at], &vec![0; 48_000], &protected.good[0][at + 48_000..]].concat(),
        )
        .unwrap();
        protected.is_restored();
    }
    for left in [len - 1, len - 5000, len - 40_000] {
        std::fs::write(&protected.paths[0], &protected.good[0][..left]).unwrap();
        protected.is_restored();
    }
    std::fs::write(&protected.paths[0], [&protected.good[0][..], &[0; 512]].concat()).unwrap();
    protected.is_restored();
}

#[test]
fn any_lost_volume_is_made_again_where_parity_suffices() {
    let protected = Protected::volumes();
    let volumes = protected.paths.iter().filter(|path| !path.to_str().unwrap().contains("parity")).count();
    assert_eq!(volumes, 3);
    let blocks: Vec<usize> = protected.paths[..volumes]
        .iter()
        .map(|path| Volume::open(path).unwrap().header().blocks().count())
        .collect();
    let mut made = 0;
    for (nth, blocks) in blocks.iter().enumerate() {
        std::fs::remove_file(&protected.paths[nth]).unwrap();
        if *blocks <= MADE {
            let repaired = protected.is_restored();
            assert_eq!((repaired.blocks, &repaired.files[..]), (*blocks, &protected.paths[nth..=nth]));
            made += 1;
        } else {
            assert!(matches!(protected.repair(), Err(RepairError::TooMuch { .. })));
            std::fs::write(&protected.paths[nth], &protected.good[nth]).unwrap();
        }
    }
    assert!(made > 0, "{blocks:?}");
}

#[test]
fn damaged_recovery_files_serve_with_what_is_good_of_them_and_are_made_again() {
    let protected = Protected::single();
    let parity = protected.good[1].len() as u64;
    let recovery = Recovery::open(&protected.paths[1]).unwrap().unwrap();
    let header = &recovery.header;
    let part = header.part_offset();
    for at in
        [0, 700, part, header.second() - 1, header.second() + 100, header.tail_offset() + 10, parity - 1]
    {
        protected.spoil(1, at, 1);
        protected.spoil(0, 3 * BLOCK, 9000);
        let repaired = protected.is_restored();
        assert_eq!(repaired.recovery, [protected.paths[1].clone()], "byte {at}");
        // The bundle may be as good as ever.
        protected.spoil(1, at, 1);
        let repaired = protected.is_restored();
        assert_eq!((repaired.files.len(), &repaired.recovery[..]), (0, &protected.paths[1..]), "byte {at}");
    }
    for left in [parity - 1, part + 5000, header.second() + 3] {
        std::fs::write(&protected.paths[1], &protected.good[1][..usize::try_from(left).unwrap()]).unwrap();
        assert_eq!(protected.is_restored().recovery.len(), 1, "{left} bytes left");
    }
    // Blocks of both kinds are lost: what is left of the recovery blocks must suffice.
    for nth in 0..MADE as u64 - 2 {
        protected.spoil(1, part + nth * BLOCK, 5);
    }
    protected.spoil(0, 0, 5000);
    assert_eq!(protected.is_restored().blocks, 2);
    for nth in 0..MADE as u64 - 2 {
        protected.spoil(1, part + nth * BLOCK, 5);
    }
    protected.spoil(0, 0, 9000);
    assert!(matches!(protected.repair(), Err(RepairError::TooMuch { lost: 3, left: 2, .. })));
    protected.restore_all();
    // Both descriptions are lost: nothing can be done.
    protected.spoil(1, 600, 1);
    protected.spoil(1, header.second() + 600, 1);
    assert!(matches!(protected.repair(), Err(RepairError::NoRecovery { .. })));
}

#[test]
fn lost_recovery_files_are_made_again_by_the_others() {
    let protected = Protected::volumes();
    let recovery: Vec<&PathBuf> = protected.recovery().collect();
    assert!(recovery.len() > 1, "{recovery:?}");
    for lost in &recovery {
        std::fs::remove_file(lost).unwrap();
        protected.spoil(0, 9000, 1);
        let repaired = protected.is_restored();
        assert_eq!((repaired.files.len(), repaired.recovery), (1, vec![(*lost).clone()]));
    }
    // What is in the way is told, and the bundle is whole all the same.
    std::fs::remove_file(recovery[0]).unwrap();
    std::fs::create_dir(recovery[0]).unwrap();
    std::fs::write(recovery[0].join("something"), "").unwrap();
    protected.spoil(0, 9000, 1);
    let error = protected.repair().unwrap_err();
    assert!(matches!(error, RepairError::Recovery(_)), "{error}");
    verify(&protected.paths[0], &protected.key).unwrap();
    assert!(names(protected.dir.path()).iter().all(|name| !name.ends_with(".repair")));
}

#[test]
fn a_repair_that_is_given_up_leaves_nothing_and_makes_nothing_more() {
    let protected = Protected::volumes();
    let before = names(protected.dir.path());
    protected.spoil(0, 9000, 1);
    protected.spoil(1, 9000, 1);
    let damaged: Vec<Vec<u8>> = protected.paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // It is given up at each of the places where it tells how far it is.
    let mut steps = 0;
    loop {
        let (making, told) = (Making::default(), std::sync::atomic::AtomicUsize::new(0));
        let progress = |_| {
            if told.fetch_add(1, Ordering::Relaxed) == steps {
                making.give_up();
            }
        };
        match repair(&[protected.dir.path().to_owned()], 1, &making, &progress) {
            Err(RepairError::GivenUp) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => break,
        }
        assert_eq!(names(protected.dir.path()), before, "after {steps} steps");
        let same = |(path, bytes): (&PathBuf, &Vec<u8>)| std::fs::read(path).unwrap() == *bytes;
        assert!(protected.paths.iter().zip(&damaged).all(same), "after {steps} steps");
        steps += 7;
    }
    assert!(steps > 50, "{steps}");
    protected.is_restored();
    // What a repair that was killed left behind goes with the next.
    let left = protected.dir.path().join(format!("{}.repair", before[0]));
    std::fs::write(&left, "left").unwrap();
    protected.is_restored();
    assert!(!left.exists());
}

#[test]
fn another_signature_reaches_the_copies_of_the_tail() {
    for protected in [Protected::single(), Protected::volumes()] {
        let bob = PrivateKey::generate();
        sign_by(&protected.paths[0], &bob).unwrap();
        let signed: Vec<Vec<u8>> = protected.paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        let nth =
            protected.paths.iter().rposition(|path| !path.to_str().unwrap().contains("parity")).unwrap();
        let last = signed[nth].len() - 1500;
        protected.spoil(nth, last as u64, 20);
        assert!(verify(&protected.paths[0], &bob).is_err());
        assert!(protected.repair().unwrap().recovery.is_empty());
        assert!(std::fs::read(&protected.paths[nth]).unwrap() == signed[nth]);
        let both = Policy::new(vec![protected.key.public(), bob.public()], 2).unwrap();
        Bundle::open(&protected.paths[0]).unwrap().check_signatures(&both).unwrap();
    }
}

#[test]
fn recovery_files_that_lie_change_nothing() {
    let protected = Protected::single();
    let other = Protected::single();
    // Another bundle's recovery file under this bundle's name: other keys, so another tail.
    std::fs::copy(&other.paths[1], &protected.paths[1]).unwrap();
    protected.spoil(0, 0, 1);
    let repaired = protected.repair().unwrap();
    assert_eq!((repaired.files.len(), repaired.recovery.len()), (1, 0));
    assert!(std::fs::read(&protected.paths[0]).unwrap() == protected.good[0]);
    // A recovery block that is none, with its digest and well framed.
    let recovery = Recovery::open(&protected.paths[1]).unwrap().unwrap();
    let mut lie = recovery.header.clone();
    let nonsense = noise(usize::try_from(BLOCK).unwrap());
    std::sync::Arc::make_mut(&mut lie.layout).recovery[0] = Digest::sha256(&nonsense);
    let file = std::fs::OpenOptions::new().write(true).open(&protected.paths[1]).unwrap();
    file::write_all_at(&file, &lie.to_bytes(), 0).unwrap();
    file::write_all_at(&file, &nonsense, lie.part_offset()).unwrap();
    protected.spoil(0, 0, 1);
    let before = std::fs::read(&protected.paths[0]).unwrap();
    let error = protected.repair().unwrap_err();
    assert!(matches!(error, RepairError::Wrong(_)), "{error}");
    assert!(std::fs::read(&protected.paths[0]).unwrap() == before);
    assert_eq!(names(protected.dir.path()), ["a.parity.1of1.tar", "a.tar"]);
    // Where the lie is not needed for the bundle, it is not told again.
    protected.restore_all();
    file::write_all_at(&file, &lie.to_bytes(), 0).unwrap();
    let lying = std::fs::read(&protected.paths[1]).unwrap();
    let error = protected.repair().unwrap_err().to_string();
    assert!(error.contains("a.parity.1of1.tar: what the recovery files say of this one"), "{error}");
    assert!(std::fs::read(&protected.paths[1]).unwrap() == lying);
}

#[test]
fn what_recovery_files_say_of_volumes_must_be_true_of_each_alone() {
    let protected = Protected::volumes();
    // All recovery files agree on digests of two blocks that are each other's. What they restore is the bundle; what they
    // say of its first volume is not true.
    for path in protected.paths.iter().filter(|path| path.to_str().unwrap().contains("parity")) {
        let mut header = Recovery::open(path).unwrap().unwrap().header;
        std::sync::Arc::make_mut(&mut header.layout).blocks.swap(0, 1);
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file::write_all_at(&file, &header.to_bytes(), 0).unwrap();
        file::write_all_at(&file, &header.to_bytes(), header.second()).unwrap();
    }
    let error = protected.repair().unwrap_err();
    assert!(matches!(error, RepairError::Wrong(_)), "{error}");
    assert!(std::fs::read(&protected.paths[0]).unwrap() == protected.good[0]);
}

#[test]
fn what_is_something_else_is_never_replaced() {
    // The recovery file under the name of the bundle.
    let protected = Protected::with("100%", None);
    std::fs::rename(&protected.paths[1], &protected.paths[0]).unwrap();
    let what = |protected: &Protected| match protected.repair().unwrap_err() {
        RepairError::Foreign { what, .. } => what,
        error => panic!("{error}"),
    };
    assert!(what(&protected).starts_with("recovery file 1 of 1 of plant-7 1 "));
    // A copy of it that is damaged at its begin.
    let protected = Protected::with("100%", None);
    let mut copy = protected.good[1].clone();
    copy[10] ^= 1;
    std::fs::write(&protected.paths[0], &copy).unwrap();
    assert!(what(&protected).starts_with("recovery file 1 of 1 of plant-7 1 "));
    assert!(std::fs::read(&protected.paths[0]).unwrap() == copy);
    // A newer bundle, which has most blocks of the one that the recovery file is of.
    let protected = Protected::with("100%", None);
    let mut lock = sample(MANIFEST, &noise(250_000));
    lock.sequence = 2;
    block_on(build_at(&protected.paths[0], &lock, &Source::of(&[MANIFEST, &noise(250_000)]), &[])).unwrap();
    let newer = std::fs::read(&protected.paths[0]).unwrap();
    assert!(what(&protected).starts_with("plant-7 2 (sha256:"));
    assert!(std::fs::read(&protected.paths[0]).unwrap() == newer);
    // Another volume of the same bundle, whose own name is free.
    let protected = Protected::with("100%", Some(VolumeSize::from_bytes(SIZE)));
    std::fs::rename(&protected.paths[2], &protected.paths[1]).unwrap();
    assert!(what(&protected).starts_with("volume 3 of 3 of plant-7 1 "));
    assert!(std::fs::read(&protected.paths[1]).unwrap() == protected.good[2]);
}

#[test]
fn a_damaged_recovery_file_under_the_name_of_another_stays() {
    let protected = Protected::with("100%", Some(VolumeSize::from_bytes(SIZE)));
    let is_parity = |path: &&PathBuf| path.to_str().unwrap().contains("parity");
    let parity: Vec<&PathBuf> = protected.paths.iter().filter(is_parity).collect();
    std::fs::rename(parity[0], parity[1]).unwrap();
    let mut bytes = std::fs::read(parity[1]).unwrap();
    bytes[10] ^= 1;
    std::fs::write(parity[1], &bytes).unwrap();
    let RepairError::Recovery(error) = protected.repair().unwrap_err() else { panic!("the bundle is whole") };
    assert!(matches!(*error, RepairError::Foreign { .. }), "{error}");
    assert!(std::fs::read(parity[1]).unwrap() == bytes);
}

#[test]
fn what_is_made_again_is_called_as_what_is_there() {
    let protected = Protected::with("100%", Some(VolumeSize::from_bytes(SIZE)));
    for path in protected.paths.iter().filter(|path| path.to_str().unwrap().contains("parity")) {
        std::fs::rename(
            path,
            path.with_file_name(format!("x{}", path.file_name().unwrap().to_str().unwrap())),
        )
        .unwrap();
    }
    std::fs::remove_file(&protected.paths[1]).unwrap();
    assert_eq!(protected.repair().unwrap().files, [protected.paths[1].clone()]);
    assert!(std::fs::read(&protected.paths[1]).unwrap() == protected.good[1]);
}

#[test]
fn of_two_copies_of_a_volume_the_one_is_repaired_that_is_read() {
    let protected = Protected::volumes();
    let path = &protected.paths[1];
    let copy = path.with_file_name(format!("z{}", path.file_name().unwrap().to_str().unwrap()));
    std::fs::copy(path, &copy).unwrap();
    protected.spoil(1, 30_000, 10);
    assert_eq!(protected.repair().unwrap().files, std::slice::from_ref(path));
    assert!(std::fs::read(path).unwrap() == protected.good[1]);
    verify(protected.dir.path(), &protected.key).unwrap();
}

#[test]
fn parity_is_reproducible_and_an_interrupted_build_goes_on() {
    let (one, two) = (Protected::volumes(), Protected::volumes());
    // The keys differ, and so does the tail; the recovery blocks do not.
    let blocks = |protected: &Protected| {
        let path = protected.paths.last().unwrap();
        let recovery = Recovery::open(path).unwrap().unwrap();
        let (from, len) = (recovery.header.part_offset(), recovery.header.part_len());
        protected.good.last().unwrap()[usize::try_from(from).unwrap()..usize::try_from(from + len).unwrap()]
            .to_vec()
    };
    assert!(blocks(&one) == blocks(&two) && !blocks(&one).is_empty());
    let sizes = one.good.iter().map(Vec::len).max().unwrap();
    assert!(sizes as u64 <= SIZE, "{sizes}");
}
