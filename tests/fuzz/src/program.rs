// SPDX-License-Identifier: GPL-2.0

//! Programs: sequences of calls for two threads; how they are generated, mutated and written.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use fastrand::Rng;

/// The kind of a call. [`crate::machine`] defines the meaning of its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Dup,
    Close,
    Alloc,
    Free,
    AllocBulk,
    FreeBulk,
    Limit,
    Trim,
    Info,
    Raw,
    Map,
    Unmap,
    Remap,
    Advise,
    Protect,
    Touch,
    Read,
    Write,
    Poll,
    Signal,
    Fork,
    Show,
    DebugTrim,
    Shrink,
    Delay,
}

use Kind::{
    Advise, Alloc, AllocBulk, Close, DebugTrim, Delay, Dup, Fork, Free, FreeBulk, Info, Limit, Map,
    Open, Poll, Protect, Raw, Read, Remap, Show, Shrink, Signal, Touch, Trim, Unmap, Write,
};

/// All kinds: their names, and their weights.
const KINDS: [(Kind, &str, u32); 26] = [
    (Open, "open", 4),
    (Dup, "dup", 2),
    (Close, "close", 4),
    (Alloc, "alloc", 16),
    (Free, "free", 12),
    (AllocBulk, "alloc_bulk", 8),
    (FreeBulk, "free_bulk", 6),
    (Limit, "limit", 6),
    (Trim, "trim", 6),
    (Info, "info", 2),
    (Raw, "raw", 4),
    (Map, "map", 8),
    (Unmap, "unmap", 4),
    (Remap, "remap", 3),
    (Advise, "advise", 4),
    (Protect, "protect", 3),
    (Touch, "touch", 10),
    (Read, "read", 4),
    (Write, "write", 4),
    (Poll, "poll", 4),
    (Signal, "signal", 4),
    (Fork, "fork", 1),
    (Show, "show", 2),
    (DebugTrim, "debug_trim", 1),
    (Shrink, "shrink", 1),
    (Delay, "delay", 1),
];

/// The numbers of a call.
pub const ARGUMENTS: usize = 4;
/// The most calls of a program.
const MAX_CALLS: usize = 32;
/// The most failure points that are tried in a call.
const MAX_POINTS: u32 = 48;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub kind: Kind,
    /// `true` if the second thread makes it.
    pub second: bool,
    /// The failure point that fails in it; 0 for none.
    pub fail: u32,
    pub args: [u64; ARGUMENTS],
}

impl Call {
    fn random(rng: &mut Rng) -> Self {
        let all: u32 = KINDS.iter().map(|(_, _, weight)| weight).sum();
        let mut at = rng.u32(..all);
        let taken = KINDS.iter().find(|(_, _, weight)| {
            let here = at < *weight;
            at = at.wrapping_sub(*weight);
            here
        });
        Self {
            kind: taken.map_or(Open, |(kind, _, _)| *kind),
            second: rng.u8(..4) == 0,
            fail: 0,
            args: std::array::from_fn(|_| number(rng)),
        }
    }
}

/// Returns a random number: mostly a small one or one near a power of 2.
fn number(rng: &mut Rng) -> u64 {
    match rng.u8(..16) {
        0..8 => rng.u64(..128),
        8..15 => (1_u64 << rng.u32(..26))
            .wrapping_add(rng.u64(..5))
            .wrapping_sub(2),
        _ => rng.u64(..),
    }
}

/// A sequence of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(pub Vec<Call>);

impl Program {
    /// Makes a random program.
    pub fn random(rng: &mut Rng) -> Self {
        let count = rng.usize(1..MAX_CALLS / 2);
        Self((0..count).map(|_| Call::random(rng)).collect())
    }

    /// Returns the program with some changes, some of which may be parts of `other`.
    pub fn mutated(&self, other: &Self, rng: &mut Rng) -> Self {
        let mut calls = self.0.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..=calls.len());
            match rng.u8(..10) {
                0..3 => calls.insert(at, Call::random(rng)),
                3 => {
                    calls.truncate(at);
                    calls.extend_from_slice(&other.0[rng.usize(..other.0.len())..]);
                }
                change => {
                    let Some(call) = calls.get_mut(at) else {
                        continue;
                    };
                    match change {
                        4..6 => call.fail = rng.u32(..MAX_POINTS),
                        6 => call.second = !call.second,
                        7 => drop(calls.remove(at)),
                        _ => call.args[rng.usize(..ARGUMENTS)] = number(rng),
                    }
                }
            }
        }
        calls.truncate(MAX_CALLS);
        if calls.is_empty() {
            return Self::random(rng);
        }
        Self(calls)
    }
}

/// `NAME:FAIL:A:B:C:D;...`, the last four in hexadecimal; `+NAME` is a call of the second thread.
impl Display for Program {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for call in &self.0 {
            let named = KINDS.iter().find(|(kind, _, _)| *kind == call.kind);
            let name = named.map_or("", |(_, name, _)| name);
            let second = if call.second { "+" } else { "" };
            write!(out, "{separator}{second}{name}:{}", call.fail)?;
            for arg in call.args {
                write!(out, ":{arg:x}")?;
            }
            separator = ";";
        }
        Ok(())
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let call = |text: &str| {
            let mut words = text.trim().split(':');
            let word = words.next()?;
            let name = word.trim_start_matches('+');
            let (kind, _, _) = *KINDS.iter().find(|(_, known, _)| *known == name)?;
            let fail = words.next()?.parse().ok()?;
            let mut args = [0; ARGUMENTS];
            for arg in &mut args {
                *arg = u64::from_str_radix(words.next()?, 16).ok()?;
            }
            words.next().is_none().then_some(Call {
                kind,
                second: name.len() < word.len(),
                fail,
                args,
            })
        };
        text.split(';')
            .map(|text| call(text).ok_or_else(|| format!("no call: {text}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_back_as_it_was_written() {
        let mut rng = Rng::with_seed(1);
        let mut program = Program::random(&mut rng);
        for _ in 0..1000 {
            let other = Program::random(&mut rng);
            program = program.mutated(&other, &mut rng);
            assert!((1..=MAX_CALLS).contains(&program.0.len()));
            assert_eq!(program.to_string().parse(), Ok(program.clone()));
        }
    }

    #[test]
    fn every_call_is_taken() {
        let mut rng = Rng::with_seed(1);
        let calls: Vec<_> = (0..10_000).map(|_| Call::random(&mut rng).kind).collect();
        for (kind, name, _) in KINDS {
            assert!(calls.contains(&kind), "{name}");
        }
    }

    #[test]
    fn a_text_that_is_no_program_is_refused() {
        for text in [
            "",
            "open",
            "open:0:0:0:0",
            "open:0:0:0:0:0:0",
            "shut:0:0:0:0:0",
            "open:0:g:0:0:0",
        ] {
            assert!(text.parse::<Program>().is_err(), "{text}");
        }
    }
}
