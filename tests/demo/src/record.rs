// SPDX-License-Identifier: GPL-2.0

//! The records that are printed, a line of JSON each.

use serde::{Deserialize, Serialize};

/// A record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// The machine, before all others.
    Machine {
        /// The release of its kernel.
        kernel: String,
        /// The unit of its clock.
        clock: Clock,
    },
    /// A program that ran to its end.
    Run(Run),
    /// The smallest limit under which a program succeeded.
    Limit {
        /// The workload.
        workload: String,
        /// The allocator.
        allocator: String,
        /// The limit in bytes (`memory.max`).
        finishes: u64,
        /// The largest limit that was tried and is too small.
        fails: u64,
    },
    /// The memory that another process got while the program idled between two steps, under one limit.
    Idle {
        /// The workload.
        workload: String,
        /// The allocator.
        allocator: String,
        /// The limit of both together, in bytes.
        limit: u64,
        /// The bytes that the program held when it became idle.
        held: u64,
        /// The bytes that the other process touched before it was killed.
        got: u64,
        /// `true` if the program then continued to its end.
        goes_on: bool,
    },
}

/// The unit of the guest's clock.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Instructions: one is a nanosecond.
    Instructions,
    /// Wall-clock time.
    Wall,
}

/// One run of a workload in a cgroup of its own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Run {
    /// The workload.
    pub workload: String,
    /// The allocator.
    pub allocator: String,
    /// The number of the round, from 0.
    pub round: u32,
    /// The checksums that the program printed beside its marks.
    pub result: String,
    /// The moments at which the program waited for a measurement.
    pub marks: Vec<Mark>,
    /// The most bytes that were charged to the cgroup (`memory.peak`).
    pub peak: u64,
    /// The usage of the whole run.
    pub total: Usage,
    /// The bytes charged to the cgroup, every 10 ms; of equal samples the first and the last.
    pub samples: Vec<Sample>,
}

impl Run {
    /// Returns the mark with that name.
    pub fn mark(&self, name: &str) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.name == name)
    }

    /// Returns the mark before that one, where the work up to it began.
    pub fn before(&self, name: &str) -> Option<&Mark> {
        let at = self.marks.iter().position(|mark| mark.name == name)?;
        self.marks.get(at.checked_sub(1)?)
    }

    /// Returns the results, those of the marks too: equal for all allocators.
    pub fn results(&self) -> String {
        let marks = self.marks.iter().map(|mark| mark.result.as_str());
        let all: Vec<_> = marks.chain([self.result.as_str()]).collect();
        all.join(" ").trim().to_owned()
    }

    /// Returns the sample with the most that was charged.
    pub fn fullest(&self) -> Option<&Sample> {
        self.samples.iter().max_by_key(|sample| sample.current)
    }

    /// Returns the most bytes that were charged and not in free blocks, of all samples.
    pub fn most_in_use(&self) -> Option<u64> {
        let in_use = |sample: &Sample| sample.current.saturating_sub(sample.free);
        self.samples.iter().map(in_use).max()
    }
}

/// A moment of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mark {
    /// The work that is done.
    pub name: String,
    /// The result of the work, as the program printed it.
    pub result: String,
    /// The bytes that are charged to the cgroup (`memory.current`).
    pub current: u64,
    /// The usage since the beginning.
    pub usage: Usage,
}

/// The usage of a cgroup since its beginning.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Usage {
    /// Page faults.
    pub faults: u64,
    /// User and system time in microseconds.
    pub time_us: u64,
    /// The system's part of it, by the ticks of the clock: not as exact as the sum.
    pub system_us: u64,
}

impl Usage {
    /// Returns the usage since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            faults: self.faults - earlier.faults,
            time_us: self.time_us - earlier.time_us,
            system_us: self.system_us.saturating_sub(earlier.system_us),
        }
    }
}

/// The memory at one moment.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// The time since the beginning of the run in microseconds.
    pub at_us: u64,
    /// The bytes charged to the cgroup (`memory.current`).
    pub current: u64,
    /// The bytes of these in free blocks of freelist's arenas.
    pub free: u64,
}

impl Sample {
    /// Appends the sample to earlier ones: of equal ones the first and the last are kept.
    pub fn add_to(self, samples: &mut Vec<Sample>) {
        let is_equal = |other: &Sample| (other.current, other.free) == (self.current, self.free);
        if samples.len() >= 2 && samples[samples.len() - 2..].iter().all(is_equal) {
            samples.pop();
        }
        samples.push(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_samples_the_first_and_the_last_are_kept() {
        let mut samples = Vec::new();
        for (at_us, current) in [(0, 1), (1, 5), (2, 5), (3, 5), (4, 5), (5, 1)] {
            let free = 0;
            Sample {
                at_us,
                current,
                free,
            }
            .add_to(&mut samples);
        }
        let kept: Vec<_> = samples.iter().map(|sample| sample.at_us).collect();
        assert_eq!(kept, [0, 1, 4, 5]);
    }
}
