// SPDX-License-Identifier: GPL-2.0

//! What is printed, a line of JSON each.

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// The machine, before all others.
    Machine {
        /// Its kernel.
        kernel: String,
        /// What a nanosecond of its clock is.
        clock: Clock,
    },
    /// A program that ran to its end.
    Run(Run),
    /// The smallest limit under which a program ended as it should.
    Limit {
        /// The workload.
        workload: String,
        /// The allocator.
        allocator: String,
        /// In bytes (`memory.max`).
        finishes: u64,
        /// The largest that was tried and is too small.
        fails: u64,
    },
    /// What another process got while the program idled between two steps, both under one limit.
    Idle {
        /// The workload.
        workload: String,
        /// The allocator.
        allocator: String,
        /// The limit of both together, in bytes.
        limit: u64,
        /// What the program held when it fell idle, in bytes.
        held: u64,
        /// What the other process touched before it was killed, in bytes.
        got: u64,
        /// Whether the program went on afterwards to its end.
        goes_on: bool,
    },
}

/// What the guest's clock counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Instructions: one is a nanosecond.
    Instructions,
    /// Time.
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
    /// What the program printed beside its marks: checksums.
    pub result: String,
    /// The moments at which the program waited until it had been looked at.
    pub marks: Vec<Mark>,
    /// The most that was charged to the cgroup, in bytes (`memory.peak`).
    pub peak: u64,
    /// All of the run.
    pub total: Usage,
    /// What was charged to the cgroup, every 10 ms; of equal ones the first and the last.
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
}

/// A moment of a run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mark {
    /// What is done.
    pub name: String,
    /// Its result, as the program printed it.
    pub result: String,
    /// What is charged to the cgroup, in bytes (`memory.current`).
    pub current: u64,
    /// What was used since the begin.
    pub usage: Usage,
}

/// What a cgroup has used since its begin.
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
    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            faults: self.faults - earlier.faults,
            time_us: self.time_us - earlier.time_us,
            system_us: self.system_us.saturating_sub(earlier.system_us),
        }
    }
}

/// What was held at a moment.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// Microseconds since the begin of the run.
    pub at_us: u64,
    /// Bytes charged to the cgroup (`memory.current`).
    pub current: u64,
    /// Of these, bytes in free blocks of freelist's arenas.
    pub free: u64,
}

impl Sample {
    /// Adds the sample to earlier ones: of equal ones the first and the last are kept.
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
