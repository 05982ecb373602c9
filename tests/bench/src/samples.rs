// SPDX-License-Identifier: GPL-2.0

//! Repeated measurements.

use crate::clock::Clock;

/// The measurements of one thing, one for each round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the measurement of a round.
    pub fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Returns whether there are no measurements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value that counts: the least number of instructions, as more are the kernel's own work; the
    /// median of times.
    pub fn value(&self, clock: Clock) -> f64 {
        match clock {
            Clock::Instructions => self.sorted().first().copied().unwrap_or(f64::NAN),
            Clock::Wall => self.quantile(0.5),
        }
    }

    /// Returns half of the distance between the quartiles, relative to the median.
    pub fn spread(&self) -> f64 {
        let median = self.quantile(0.5);
        if median == 0.0 {
            return 0.0;
        }
        (self.quantile(0.75) - self.quantile(0.25)) / 2.0 / median.abs()
    }

    /// Returns the ratios to `other`, round by round: what disturbs a whole round disturbs both.
    pub fn over(&self, other: &Self, clock: Clock) -> Self {
        match clock {
            Clock::Instructions => Self(vec![self.value(clock) / other.value(clock)]),
            Clock::Wall => self.with(other, |one, other| one / other),
        }
    }

    /// Applies `work` to each.
    pub fn map(&self, work: impl FnMut(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(work).collect())
    }

    /// Applies `work` to both, round by round.
    fn with(&self, other: &Self, work: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(one, other)| work(*one, *other)).collect())
    }

    /// Returns the samples with the largest value.
    pub fn worst<'a>(all: impl IntoIterator<Item = &'a Self>, clock: Clock) -> &'a Self {
        Self::by_value(all, clock)
            .last()
            .copied()
            .expect("there are some")
    }

    /// Returns the samples with the least value.
    pub fn best<'a>(all: impl IntoIterator<Item = &'a Self>, clock: Clock) -> &'a Self {
        Self::by_value(all, clock)
            .first()
            .copied()
            .expect("there are some")
    }

    fn by_value<'a>(all: impl IntoIterator<Item = &'a Self>, clock: Clock) -> Vec<&'a Self> {
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|one, other| one.value(clock).total_cmp(&other.value(clock)));
        all
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// Interpolates linearly between the two nearest measurements.
    fn quantile(&self, part: f64) -> f64 {
        let sorted = self.sorted();
        let Some(last) = sorted.len().checked_sub(1) else {
            return f64::NAN;
        };
        let at = part * last as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(samples: T) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(samples: &[f64]) -> Samples {
        samples.iter().copied().collect()
    }

    #[test]
    fn of_instructions_the_least_counts_and_of_times_the_median() {
        let samples = samples(&[5.0, 3.0, 4.0, 100.0]);
        assert_eq!(samples.value(Clock::Instructions), 3.0);
        assert_eq!(samples.value(Clock::Wall), 4.5);
    }

    #[test]
    fn the_spread_is_that_of_the_quartiles() {
        assert_eq!(samples(&[1.0, 2.0, 3.0, 4.0, 5.0]).spread(), 1.0 / 3.0);
        assert_eq!(samples(&[7.0, 7.0]).spread(), 0.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (one, other) = (samples(&[2.0, 40.0, 6.0]), samples(&[1.0, 20.0, 2.0]));
        assert_eq!(one.over(&other, Clock::Wall).0, [2.0, 2.0, 3.0]);
        assert_eq!(one.over(&other, Clock::Instructions).0, [2.0]);
    }

    #[test]
    fn the_worst_and_the_best_are_found() {
        let all = [samples(&[2.5]), samples(&[3.0, 1.0]), samples(&[1.5])];
        assert_eq!(Samples::worst(&all, Clock::Wall).0, [2.5]);
        assert_eq!(Samples::best(&all, Clock::Instructions).0, [3.0, 1.0]);
    }
}
