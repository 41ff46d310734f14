# What is done often. `just` lists it; everything here works without just too.

_default:
    @just --list --unsorted

# Start with flags, e.g. `just run demo` or `just run --backend localhost:50051`
run *FLAGS:
    cargo run --release -- {{FLAGS}}

# Does it build, without a warning
check:
    cargo check --all-targets

# Everything that CI runs, with what that needs
test:
    ./scripts/test

# Tests of this crate alone
quick:
    cargo test

# Form and lints
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# A hundred seeds of the simulator; with a seed, that one again
sim SEED="":
    scripts/sim {{ if SEED == "" { "--seeds 100" } else { SEED } }}

# One fuzz target for a while
fuzz TARGET SECONDS="60":
    scripts/fuzz {{TARGET}} {{SECONDS}}

# The benches
bench:
    cargo bench --bench codec
