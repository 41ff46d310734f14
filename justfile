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

# Which test holds which row of docs/faults.md
catalogue:
    cargo test --test catalogue -- --nocapture

# A hundred seeds of the simulator; with a seed, that one again
sim SEED="":
    scripts/sim {{ if SEED == "" { "--seeds 100" } else { SEED } }}

# A million seeds, or so many: hours
seeds N="1000000":
    scripts/sim --seeds {{N}}

# One fuzz target for a while
fuzz TARGET SECONDS="60":
    scripts/fuzz {{TARGET}} {{SECONDS}}

# Stamped calls to backends that are killed: 100,000, or `just chaos smoke`
chaos *FLAGS:
    scripts/chaos {{FLAGS}}

# What hostile hands do to wharf and to other proxies; `just trials wharf`: to wharf alone
trials *PROXIES:
    scripts/trials {{PROXIES}}

# Valgrind over the real program
leaks CALLS="200":
    scripts/leaks {{CALLS}}

# Is every change to the code noticed by a test? An hour or two; `just mutants 3/200`: one in 200 of them
mutants SHARD="":
    scripts/mutants {{SHARD}}

# The codec's speed
codec:
    cargo bench --bench codec

# wharf beside other proxies and the floor: `just bench`, half an hour alone on the machine; `just bench smoke`
bench *WORDS:
    scripts/bench {{WORDS}}
