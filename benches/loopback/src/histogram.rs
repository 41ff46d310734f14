//! Durations, counted in buckets. Owns the widths of the buckets and the quantiles read from them. A bucket is at most 1/64
//! of its value wide, so a quantile is that exact; the largest duration is kept as it was.

use serde_json::{Value, json};

/// Buckets for each power of two.
const STEPS: u64 = 64;

/// How many bits a step takes.
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// How often each duration was seen, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        let largest = bucket(u64::MAX);
        Self {
            counts: vec![0; largest + 1],
            total: 0,
            max_ns: 0,
        }
    }

    /// Counts one duration.
    pub(crate) fn count(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The duration that `share` of all do not exceed, rounded up to its bucket's end; 0 where nothing was counted.
    pub(crate) fn quantile_ns(&self, share: f64) -> u64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_ns(index).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// p50, p90, p99 and the largest, in microseconds, as a report shows them.
    pub(crate) fn summary_us(&self) -> Value {
        let us = |ns: u64| (ns as f64 / 100.0).round() / 10.0;
        json!({
            "p50": us(self.quantile_ns(0.50)),
            "p90": us(self.quantile_ns(0.90)),
            "p99": us(self.quantile_ns(0.99)),
            "max": us(self.max_ns),
        })
    }
}

/// The bucket of a duration: exact below 64, then 64 for each power of two.
fn bucket(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEP_BITS;
    ((u64::from(shift) + 1) * STEPS + (ns >> shift) - STEPS) as usize
}

/// The largest duration of a bucket.
fn upper_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    let first = (bucket % STEPS + STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_a_bucket_that_is_no_wider_than_a_sixty_fourth_of_it() {
        let mut last = 0;
        for ns in (0..200_000).chain([1 << 40, u64::MAX / 3, u64::MAX]) {
            let at = bucket(ns);
            assert!(at >= last, "{ns}");
            last = at;
            assert!(upper_ns(at) >= ns, "{ns}");
            assert!(upper_ns(at) - ns <= ns / 64, "{ns}: {}", upper_ns(at));
        }
    }

    #[test]
    fn quantiles_of_a_thousand_known_durations() {
        let mut histogram = Histogram::new();
        for ns in 1..=1000 {
            histogram.count(ns * 1000);
        }
        for (share, expected) in [
            (0.5, 500_000),
            (0.9, 900_000),
            (0.99, 990_000),
            (1.0, 1_000_000),
        ] {
            let found = histogram.quantile_ns(share);
            assert!(
                (expected..=expected + expected / 64).contains(&found),
                "{share}: {found}"
            );
        }
        assert_eq!(histogram.summary_us()["max"], 1000.0);
    }

    #[test]
    fn nothing_counted_is_nothing() {
        assert_eq!(Histogram::new().quantile_ns(0.5), 0);
    }
}
