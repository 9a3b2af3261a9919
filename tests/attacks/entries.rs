//! The archive itself: entries that do other things than hold a file, names that lead elsewhere, sizes that are not so.

use super::bench::{attacks, changed, good};
use crate::archive::{
    Archive, BLOCK, KIND, LINK, MAGIC, MODE, MTIME, NAME, PREFIX, Part, SIZE, fix_checksum, put, record,
};

/// Every message says where.
const WHERE: &str = "at byte ";

/// The good bundle, where the header of its second entry is changed and has the right checksum again.
fn header(change: impl FnOnce(&mut [u8])) -> Vec<Vec<u8>> {
    changed(|archive| {
        change(archive.parts[1].main());
        fix_checksum(archive.parts[1].main());
    })
}

/// The second entry as each of these kinds.
fn kinds(kinds: &[u8]) -> Vec<Vec<u8>> {
    let one = |kind: &u8| {
        header(|header| {
            header[KIND] = *kind;
            put(header, LINK, b"/etc/passwd");
        })
    };
    kinds.iter().flat_map(one).collect()
}

/// The good bundle with `part` before its second entry.
fn inserted(part: Part) -> Vec<Vec<u8>> {
    changed(|archive| archive.parts.insert(1, part))
}

/// The good bundle with an extended header before its second entry.
fn extended(kind: u8, records: &[(&str, &str)]) -> Vec<Vec<u8>> {
    let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
    inserted(Part::extension(kind, "PaxHeaders/x", &text))
}

/// The good bundle with a file of this name at the end.
fn named(names: &[&str]) -> Vec<Vec<u8>> {
    let one = |name: &&str| changed(|archive| archive.parts.push(Part::file(name, *b"evil")));
    names.iter().flat_map(one).collect()
}

/// The good bundle, where the second entry states this size.
fn sized(field: &[u8]) -> Vec<Vec<u8>> {
    header(|header| put(header, SIZE, field))
}

attacks! {
    a_symbolic_link: AtOnce, [WHERE], || kinds(b"2");
    a_hard_link: AtOnce, [WHERE], || kinds(b"1");
    a_directory: AtOnce, [WHERE], || kinds(b"5");
    a_device_or_a_pipe: AtOnce, [WHERE], || kinds(b"346");
    a_file_of_another_form: AtOnce, [WHERE], || kinds(b"\x007");
    an_entry_of_gnu_tar: AtOnce, [WHERE], || kinds(b"DLKMNSV");
    an_entry_of_another_vendor: AtOnce, [WHERE], || kinds(b"AEIXZ");
    a_link_between_the_entries: AtOnce, [WHERE], || {
        let mut link = Part::extension(b'2', "blobs/sha256/link", "");
        put(link.main(), LINK, b"../../../etc");
        link.seal();
        inserted(link)
    };
    a_link_in_a_folder_of_its_own_name: AtOnce, [WHERE], || {
        let mut link = Part::extension(b'2', "blobs", "");
        put(link.main(), LINK, b"/etc");
        link.seal();
        inserted(link)
    };
    an_extended_header_with_another_path: AtOnce, [WHERE], || {
        extended(b'x', &[("path", "../../evil")])
    };
    an_extended_header_with_another_size: AtOnce, [WHERE], || {
        [extended(b'x', &[("size", "1")]), extended(b'x', &[("size", "99999999999999")])].concat()
    };
    an_extended_header_with_a_link: AtOnce, [WHERE], || {
        extended(b'x', &[("linkpath", "/etc/passwd")])
    };
    an_extended_header_with_attributes: AtOnce, [WHERE], || {
        extended(b'x', &[("SCHILY.xattr.security.capability", "x"), ("uid", "0"), ("mtime", "1.5")])
    };
    an_extended_header_with_two_records: AtOnce, [WHERE], || {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        [
            extended(b'x', &[("path", &long), ("size", "1")]),
            extended(b'x', &[("path", &format!("{long}\n12 size=1"))]),
        ]
        .concat()
    };
    an_extended_header_for_all: AtOnce, [WHERE], || extended(b'g', &[("path", "../../evil")]);
    an_extended_header_with_nothing_after_it: AtOnce, [WHERE], || {
        changed(|archive| {
            let record = record("path", &"a".repeat(120));
            archive.parts.push(Part::extension(b'x', "PaxHeaders/path", &record));
            archive.end.clear();
        })
    };
    a_sparse_file: AtOnce, [WHERE], || {
        extended(b'x', &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1099511627776")])
    };
    a_long_name_of_gnu_tar: AtOnce, [WHERE], || {
        inserted(Part::extension(b'L', "././@LongLink", "../../../../etc/cron.d/evil\0"))
    };
    a_long_link_of_gnu_tar: AtOnce, [WHERE], || inserted(Part::extension(b'K', "././@LongLink", "/etc/passwd\0"));
    a_blob_that_is_there_twice: AtOnce, [WHERE], || {
        changed(|archive| archive.parts.insert(1, archive.parts[1].clone()))
    };
    an_index_that_is_there_twice: AtOnce, [WHERE], || {
        changed(|archive| {
            let at = archive.position("index.json").unwrap();
            archive.parts.insert(at, archive.parts[at].clone());
        })
    };
    a_second_index_at_the_end: AtOnce, [WHERE], || {
        changed(|archive| {
            let at = archive.position("index.json").unwrap();
            archive.parts.push(archive.parts[at].clone());
        })
    };
    an_absolute_name: AtOnce, [WHERE], || named(&["/etc/cron.d/evil"]);
    a_name_that_leads_out: AtOnce, [WHERE], || {
        named(&["../evil", "blobs/../../evil", "blobs/sha256/../../../evil", "./index.json", "..", "."])
    };
    a_name_for_windows: AtOnce, [WHERE], || {
        named(&["C:\\Windows\\evil.dll", "..\\..\\evil", "\\\\host\\share\\evil", "blobs/sha256/con", "nul", "index.json:stream"])
    };
    a_name_with_control_characters: AtOnce, [WHERE], || {
        named(&["evil\n", "\u{1b}[2Jevil", "evil\tname", "a name", "na\u{ef}ve"])
    };
    a_name_with_something_after_its_end: AtOnce, [WHERE], || {
        header(|header| header[NAME.0 + 90..NAME.0 + 95].copy_from_slice(b"\0evil"))
    };
    a_name_in_two_parts: AtOnce, [WHERE], || header(|header| put(header, PREFIX, b"../../evil"));
    no_name: AtOnce, [WHERE], || named(&[""]);
    a_digest_in_capitals: AtOnce, [WHERE], || {
        changed(|archive| {
            let name = archive.parts[1].path().to_uppercase().replace("BLOBS/SHA256", "blobs/sha256");
            assert_ne!(name, archive.parts[1].path());
            put(archive.parts[1].main(), NAME, name.as_bytes());
            archive.parts[1].seal();
        })
    };
    an_entry_more: AtOnce, [WHERE], || named(&["blobs/sha256/evil"]);
    an_entry_more_in_the_middle: AtOnce, [WHERE], || {
        inserted(Part::file("blobs/sha256/evil", *b"evil"))
    };
    an_entry_less: AtOnce, [WHERE], || {
        let entries = good().parts.len();
        (0..entries).flat_map(|nth| changed(|archive| drop(archive.parts.remove(nth)))).collect()
    };
    entries_in_another_order: AtOnce, [WHERE], || {
        let entries = good().parts.len();
        (1..entries).flat_map(|nth| changed(|archive| archive.parts.swap(nth - 1, nth))).collect()
    };
    an_entry_larger_than_the_lock_says: AtOnce, [WHERE], || {
        changed(|archive| {
            archive.parts[1].content.extend_from_slice(b"more");
            archive.parts[1].seal();
        })
    };
    an_entry_smaller_than_the_lock_says: AtOnce, [WHERE], || {
        changed(|archive| {
            archive.parts[1].content.pop();
            archive.parts[1].seal();
        })
    };
    a_size_beyond_the_end: AtOnce, [WHERE], || {
        [&b"77777777777\0"[..], b"\x80\0\0\0\0\0\0\x10\0\0\0\0", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"]
            .into_iter()
            .flat_map(sized)
            .collect()
    };
    a_size_that_overflows: AtOnce, [WHERE], || sized(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    a_size_below_nothing: AtOnce, [WHERE], || {
        [sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), sized(b"-0000000001\0")].concat()
    };
    a_size_of_more_than_eight_bytes: AtOnce, [WHERE], || sized(b"\x80\0\0\x01\0\0\0\0\0\0\0\x01");
    a_size_written_otherwise: AtOnce, [WHERE], || {
        [&b"        12 \0"[..], b"000000000012", b"0x000000012\0", b"12\0\0\0\0\0\0\0\0\0\0", b"\x80\0\0\0\0\0\0\0\0\0\0\x0a"]
            .into_iter()
            .flat_map(sized)
            .collect()
    };
    a_program_that_becomes_root: AtOnce, [WHERE], || {
        [header(|header| put(header, MODE, b"0004755\0")), header(|header| put(header, MODE, b"0000777\0"))].concat()
    };
    an_owner: AtOnce, [WHERE], || {
        [header(|header| put(header, (108, 8), b"0001750\0")), header(|header| put(header, (265, 32), b"operator"))]
            .concat()
    };
    another_time_for_one_entry: AtOnce, [WHERE], || {
        header(|header| put(header, MTIME, b"14000000000\0"))
    };
    another_form_of_header: AtOnce, [WHERE], || {
        [header(|header| put(header, MAGIC, b"ustar  \0")), header(|header| put(header, MAGIC, b""))].concat()
    };
    a_wrong_checksum: AtOnce, [WHERE], || changed(|archive| archive.parts[1].main()[150] ^= 1);
    bytes_between_the_entries: BesideContent, ["is damaged"], || {
        let head = crate::sample::Sample::new().lock.blobs.len();
        let padding = |nth: usize| {
            let archive = good();
            let before: usize = archive.parts[..nth].iter().map(|part| part.to_bytes().len()).sum();
            before + archive.parts[nth].header.len() + archive.parts[nth].content.len()
        };
        let one = |nth: usize| {
            let mut bytes = good().to_bytes();
            bytes[padding(nth)] = 1;
            bytes
        };
        (0..head).map(one).collect()
    };
    bytes_between_the_documents: AtOnce, [WHERE], || {
        changed(|archive| {
            let last = archive.parts.len() - 1;
            let mut layout = archive.parts.pop().unwrap().to_bytes();
            *layout.last_mut().unwrap() = 1;
            assert_eq!(last, archive.parts.len());
            archive.end.splice(0..0, layout);
        })
    };
    bytes_after_the_end: AtOnce, [WHERE], || {
        [
            changed(|archive| archive.end.push(0)),
            changed(|archive| archive.end.extend_from_slice(&[0; BLOCK])),
            changed(|archive| archive.end.extend_from_slice(&[0; 20 * BLOCK])),
            changed(|archive| archive.end.extend_from_slice(b"PK\x03\x04")),
        ]
        .concat()
    };
    an_archive_after_the_end: AtOnce, [WHERE], || {
        changed(|archive| archive.end.extend_from_slice(&good().to_bytes()))
    };
    an_end_that_is_too_short: AtOnce, [WHERE], || {
        [changed(|archive| archive.end.truncate(BLOCK)), changed(|archive| archive.end.truncate(1023))].concat()
    };
    no_end: AtOnce, [WHERE], || changed(|archive| archive.end.clear());
    cut_at_every_boundary: AtOnce, [WHERE], || {
        let bytes = good().to_bytes();
        let (blocks, archive) = (bytes.len() / BLOCK, good());
        let mut cuts: Vec<usize> = (0..blocks).flat_map(|nth| [nth * BLOCK, nth * BLOCK + 1, nth * BLOCK + 511]).collect();
        let mut at = 0;
        for part in &archive.parts {
            cuts.push(at + part.header.len() + part.content.len());
            at += part.to_bytes().len();
        }
        cuts.into_iter().filter(|cut| *cut < bytes.len()).map(|cut| bytes[..cut].to_vec()).collect()
    };
    nothing_at_all: AtOnce, [WHERE], || vec![Vec::new(), vec![0], vec![0; 1024], vec![0; 10_240], vec![0xff; 10_240]];
    an_image_layout_of_somebody_else: AtOnce, ["no bundle made by dray"], || {
        let mut archive = Archive { parts: Vec::new(), end: vec![0; 2 * BLOCK] };
        archive.parts.push(Part::file("index.json", *br#"{"schemaVersion":2,"manifests":[]}"#));
        archive.parts.push(Part::file("oci-layout", *br#"{"imageLayoutVersion":"1.0.0"}"#));
        vec![archive.to_bytes()]
    };
}
