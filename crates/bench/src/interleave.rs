//! Owns how a benchmark is sampled: repetitions per sample, rounds, the order in a round, medians.
//!
//! The number that counts is the median of the faster half of the samples. What disturbs a sample from
//! outside only ever makes it slower, and on a small machine it disturbs more than half of them at
//! times; the plain median then says which target was disturbed more often, not which is faster.

use std::time::{Duration, Instant};

use crate::{cases::Probe, placement};

/// A target's place in the list, and what went wrong on it.
pub(crate) type Failure = (usize, String);

/// How long and how often to sample.
pub(crate) struct Pace {
    /// Samples are taken until this much time has gone by ...
    budget: Duration,
    /// ... but at least so many rounds, a multiple of the six orders of three targets.
    least_rounds: u32,
    /// What a sample should last on the fastest target, for the clock and the scheduler not to show.
    sample: Duration,
    /// The most repetitions in one sample.
    most: u32,
}

impl Pace {
    pub fn new(quick: bool, most: u32) -> Self {
        let [budget, sample] = if quick { [800, 4] } else { [8_000, 10] }.map(Duration::from_millis);
        Self { budget, sample, least_rounds: if quick { 6 } else { 12 }, most }
    }
}

/// Seconds per repetition on each of `probes`, over interleaved rounds.
pub(crate) fn medians(probes: &mut [Probe<'_>], pace: &Pace) -> Result<Vec<f64>, Failure> {
    let repetitions = warm_up(probes, pace)?;
    let mut samples = vec![Vec::new(); probes.len()];
    let start = Instant::now();
    let mut round = 0;
    while round < pace.least_rounds || start.elapsed() < pace.budget {
        for index in order(round, probes.len()) {
            // Out of step with the order, which turns round every second time.
            placement::move_on((round + round / 2) as usize);
            let time = sample(probes, index, repetitions)?;
            samples[index].push(time.as_secs_f64() / f64::from(repetitions));
        }
        round += 1;
    }
    Ok(samples.into_iter().map(faster_half).map(median).collect())
}

/// Runs rounds that do not count, doubling the repetitions until a sample is long enough to measure
/// or so long that the budget would not hold the rounds. All targets repeat equally often: what a
/// batch pays once, such as the wait at its end, must weigh the same everywhere.
fn warm_up(probes: &mut [Probe<'_>], pace: &Pace) -> Result<u32, Failure> {
    let share = pace.budget / (pace.least_rounds * probes.len() as u32);
    let mut repetitions = 1;
    loop {
        let (mut fastest, mut longest) = (Duration::MAX, Duration::ZERO);
        for index in 0..probes.len() {
            let start = Instant::now();
            fastest = fastest.min(sample(probes, index, repetitions)?);
            longest = longest.max(start.elapsed());
        }
        let settled = fastest >= pace.sample || longest * 2 > share || repetitions * 2 > pace.most;
        if settled {
            return Ok(repetitions);
        }
        repetitions *= 2;
    }
}

fn sample(probes: &mut [Probe<'_>], index: usize, repetitions: u32) -> Result<Duration, Failure> {
    probes[index](repetitions).map_err(|problem| (index, problem))
}

/// Who goes when: everyone comes equally often at each place, and equally often after each other one
/// of three, for what a target leaves running in the background is charged to who comes next.
fn order(round: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    order.rotate_left(round as usize / 2 % count);
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// The smaller half of `values` in order; the middle one, if there is one, belongs to it.
fn faster_half(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values.truncate(values.len().div_ceil(2));
    values
}

/// Of values in order.
fn median(values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_rounds_take_three_targets_through_every_order() {
        let mut orders: Vec<_> = (0..6).map(|round| order(round, 3)).collect();
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn slow_samples_do_not_count() {
        let value = |values: &[f64]| median(faster_half(values.to_vec()));
        assert_eq!(value(&[7.0]), 7.0);
        assert_eq!(value(&[9.0, 1.0, 2.0, 8.0, 9.0]), 2.0);
        assert_eq!(value(&[9.0, 1.0, 2.0, 4.0, 5.0, 9.0, 9.0]), 3.0);
    }

    #[test]
    fn every_target_repeats_equally_often() {
        let fake =
            |micros: u64| -> Probe<'static> { Box::new(move |n| Ok(Duration::from_micros(micros) * n)) };
        let pace = Pace { budget: Duration::ZERO, most: 8, ..Pace::new(true, 8) };
        let values = medians(&mut [fake(100), fake(300)], &pace).unwrap();
        assert!((values[1] / values[0] - 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_failure_names_its_target() {
        let good: Probe<'static> = Box::new(|_| Ok(Duration::from_millis(50)));
        let bad: Probe<'static> = Box::new(|_| Err("gone".into()));
        let failure = medians(&mut [good, bad], &Pace::new(true, 1)).unwrap_err();
        assert_eq!(failure, (1, "gone".to_owned()));
    }
}
