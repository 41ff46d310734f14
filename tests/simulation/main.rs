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
mod caller;
mod clock;
mod cores;
mod frames;
mod http1;
mod http2;
mod http2_clock;
mod http2_counts;
mod http2_turns;
mod limits;
mod model;
mod panics;
mod plan;
mod raw;
mod rows;
mod server;
mod still;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::{Tally, World};

/// How many lines of a failed seed's trace are shown.
const LINES: usize = 50;
const SEEDS: u64 = 2_000;
/// After so many failures no further seed is begun.
const FAILURES_MAX: usize = 5;
/// How often a long run says how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(10);

#[test]
fn every_call_ends_once_and_as_it_may_whatever_the_seed() {
    if let Some(seed) = number("WHARF_SEED") {
        let mut world = World::new(seed, Instant::now(), Some(usize::MAX));
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
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = AtomicU64::new(first);
    let done = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failures.lock().unwrap().len() >= FAILURES_MAX {
                        return;
                    }
                    match run(seed) {
                        Ok(tally) => total.lock().unwrap().add(&tally),
                        Err(failure) => {
                            println!("{failure}\n");
                            failures.lock().unwrap().push(failure);
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let mut said = Instant::now();
            let begun = said;
            while done.load(Ordering::Relaxed) < end - first
                && failures.lock().unwrap().len() < FAILURES_MAX
            {
                std::thread::sleep(Duration::from_millis(20));
                if said.elapsed() >= PROGRESS_PAUSE {
                    said = Instant::now();
                    let done = done.load(Ordering::Relaxed);
                    let pace = done as f64 / begun.elapsed().as_secs_f64();
                    let failed = failures.lock().unwrap().len();
                    println!(
                        "{done} of {} seeds, {pace:.0} a second, {failed} failed",
                        end - first
                    );
                }
            }
        });
    });
    let total = total.into_inner().unwrap();
    println!("{total:#?}");
    if total.seeds >= SEEDS {
        let reached = [
            total.refused,
            total.sieved,
            total.discards,
            total.rests,
            total.shared,
            total.native,
            total.reset,
            total.goaways,
        ];
        assert!(
            reached.iter().all(|&count| count > 0),
            "a joint is out of reach: {total:?}"
        );
    }
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
            let mut world = World::new(seed, Instant::now(), Some(0));
            world.run();
            world.machine.hash()
        });
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}

/// Runs it without a trace; what fails is run once more, to be told.
fn run(seed: u64) -> Result<Tally, String> {
    attempt(seed, None).or_else(|_| attempt(seed, Some(LINES)))
}

fn attempt(seed: u64, lines: Option<usize>) -> Result<Tally, String> {
    let mut world = World::new(seed, Instant::now(), lines);
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
