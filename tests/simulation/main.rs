//! The proxy as a function of a seed: one core on a simulated machine, scripted browsers on one side of it, scripted gRPC
//! servers on the other, and a model that knows what each call may have come to.
//!
//! `WHARF_SEEDS=N` runs so many seeds (200), `WHARF_SEED=S` one alone with its whole trace; `scripts/sim` does both.

#![allow(
    clippy::print_stdout,
    reason = "what a replay prints is what it is for"
)]

mod answer;
mod browser;
mod model;
mod panics;
mod plan;
mod server;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::{Tally, World};

const SEEDS: u64 = 200;

#[test]
fn every_call_ends_once_and_as_it_may_whatever_the_seed() {
    if let Some(seed) = number("WHARF_SEED") {
        let mut world = World::new(seed, Instant::now(), usize::MAX);
        let result = catch_unwind(AssertUnwindSafe(|| world.run()));
        for line in world.machine.take_lines() {
            println!("{line}");
        }
        println!("{:?}", world.tally);
        if let Err(panic) = result {
            println!("seed {seed} failed in turn {}", world.turns);
            std::panic::resume_unwind(panic);
        }
        return;
    }
    let first = number("WHARF_FIRST").unwrap_or(1);
    let end = first + number("WHARF_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().unwrap().len() >= 5 {
                        return;
                    }
                    match run(seed) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{total:#?}");
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} seeds failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 15, 92] {
        let hashes = [(); 2].map(|()| {
            let mut world = World::new(seed, Instant::now(), 0);
            world.run();
            world.machine.hash()
        });
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

fn run(seed: u64) -> Result<Tally, String> {
    let mut world = World::new(seed, Instant::now(), 50);
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(()) => Ok(world.tally),
        Err(panic) => {
            let why = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic");
            let failure = format!(
                "seed {seed}, turn {}: {why}\n{}\nagain: scripts/sim {seed}",
                world.turns,
                world.machine.take_lines().join("\n"),
            );
            // Its core may not be fit to be dropped.
            std::mem::forget(world);
            Err(failure)
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
