//! Arithmetic of a report: medians, spreads, and ratios that are taken round by round. Owns no measurement and no text.
//!
//! A round is an index; what a round did not yield is `None` and stays out of the median, never a zero.

/// What was seen over some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub(super) median: f64,
    /// The smallest.
    pub(super) min: f64,
    /// The largest.
    pub(super) max: f64,
    /// How many rounds had one.
    pub(super) rounds: usize,
}

impl Spread {
    /// Of what the rounds yielded; `None` where none of them did.
    pub(super) fn of(rounds: &[Option<f64>]) -> Option<Self> {
        let mut seen: Vec<f64> = rounds
            .iter()
            .flatten()
            .copied()
            .filter(|value| value.is_finite())
            .collect();
        seen.sort_by(f64::total_cmp);
        let (min, max) = (*seen.first()?, *seen.last()?);
        let middle = seen.len() / 2;
        let median = if seen.len() % 2 == 1 {
            seen[middle]
        } else {
            f64::midpoint(seen[middle - 1], seen[middle])
        };
        Some(Self {
            median,
            min,
            max,
            rounds: seen.len(),
        })
    }

    /// How far the rounds lie apart, as a share of the median: 0.06 is from 3 % below to 3 % above.
    pub(super) fn width(&self) -> f64 {
        if self.median == 0.0 {
            0.0
        } else {
            (self.max - self.min) / self.median
        }
    }
}

/// The first divided by the second, round by round. What drifts from round to round drifts in both, and falls out.
pub(super) fn ratios(own: &[Option<f64>], reference: &[Option<f64>]) -> Vec<Option<f64>> {
    own.iter()
        .zip(reference)
        .map(|pair| match pair {
            (Some(own), Some(reference)) if *reference > 0.0 => Some(own / reference),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_and_of_an_even_number_the_mean_of_two() {
        let odd = Spread::of(&[Some(3.0), Some(1.0), Some(9.0)]).expect("three rounds");
        assert_eq!(
            (odd.median, odd.min, odd.max, odd.rounds),
            (3.0, 1.0, 9.0, 3)
        );
        let even = Spread::of(&[Some(4.0), Some(1.0), Some(2.0), Some(9.0)]).expect("four rounds");
        assert_eq!(even.median, 3.0);
    }

    #[test]
    fn a_round_without_a_figure_is_no_zero() {
        let spread = Spread::of(&[None, Some(2.0), None]).expect("one round");
        assert_eq!((spread.median, spread.rounds), (2.0, 1));
        assert_eq!(Spread::of(&[None, None]), None);
        assert_eq!(Spread::of(&[Some(f64::NAN)]), None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round_so_that_drift_falls_out() {
        // The machine became twice as slow; the ratio did not move.
        let own = [Some(10.0), Some(20.0), None, Some(1.0)];
        let reference = [Some(20.0), Some(40.0), Some(40.0), Some(0.0)];
        assert_eq!(ratios(&own, &reference), [Some(0.5), Some(0.5), None, None]);
    }

    #[test]
    fn the_width_is_a_share_of_the_median() {
        let spread = Spread::of(&[Some(9.0), Some(10.0), Some(12.0)]).expect("three rounds");
        assert!((spread.width() - 0.3).abs() < 1e-9);
    }
}
