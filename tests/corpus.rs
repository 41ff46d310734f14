//! The checks of the fuzz targets over their committed corpus, without a fuzzer: what once was found stays found.

use std::fs;
use std::path::Path;

/// The very functions that libFuzzer calls.
#[path = "../fuzz/src/lib.rs"]
#[allow(
    unreachable_pub,
    reason = "public in the fuzz crate, to which the file belongs"
)]
mod checks;

/// Targets that stand on the simulator's machine: without the feature `sim` they are not among [`checks::TARGETS`].
const SIMULATED: &[&str] = &["core_ops"];

#[test]
fn every_seed_of_every_target_holds() {
    for (target, check) in checks::TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{target} has too few seeds");
        for (name, seed) in seeds {
            // Shown only if the check panics.
            eprintln!("{target}/{name}");
            check(&seed);
        }
    }
}

#[test]
fn every_seed_holds_however_it_is_cut_and_bent() {
    for (target, check) in checks::TARGETS {
        // A whole core takes its time.
        let cuts = if SIMULATED.contains(target) { 12 } else { 64 };
        for (name, seed) in seeds(target) {
            eprintln!("{target}/{name}");
            let step = 1 + seed.len() / cuts;
            for at in (0..seed.len()).step_by(step) {
                let (start, end) = seed.split_at(at);
                check(start);
                check(end);
                check(&[start, b"\r\n", end].concat());
                check(&[start, b"\0", end].concat());
                check(&[start, &end[1..]].concat());
            }
            check(&[seed.clone(), seed].concat());
        }
    }
}

#[test]
fn every_target_has_a_program_and_every_corpus_a_target() {
    let names: Vec<_> = checks::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert!(names.is_sorted());
    let listed = |folder: &str| {
        let mut found: Vec<_> = fs::read_dir(fuzz().join(folder))
            .expect("the folder is part of the repository")
            .map(|entry| entry.expect("a readable entry").path())
            .map(|path| {
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| cfg!(feature = "sim") || !SIMULATED.contains(&&**name))
            .collect();
        found.sort();
        found
    };
    assert_eq!(listed("fuzz_targets"), names);
    assert_eq!(listed("corpus"), names);
    let manifest =
        fs::read_to_string(fuzz().join("Cargo.toml")).expect("the fuzz crate's manifest");
    for name in names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is no [[bin]]"
        );
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = fs::read_dir(fuzz().join("corpus").join(target))
        .expect("every target has a corpus")
        .map(|entry| entry.expect("a readable entry"))
        .map(|entry| {
            let seed = fs::read(entry.path()).expect("a readable seed");
            (entry.file_name().to_string_lossy().into_owned(), seed)
        })
        .collect();
    seeds.sort();
    seeds
}

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}
