// SPDX-License-Identifier: MIT OR Apache-2.0

//! The arena that serves. It is opened at the first large block, and again after the program closed its
//! file.

use core::ffi::CStr;

use super::counters::{self, are_reported, counters};
use super::message::{say, Answer};
use super::range::{Kind, Range};
use super::settings::Settings;
use super::{descriptor, LargeBlocks, Refusal};
use crate::sync::atomic::Ordering::*;
use crate::sys::{self, Fork};

/// The device, for a system call.
const DEVICE: &CStr = c"/dev/freelist";
/// The number of times that the device is opened again after the program closed it.
const MAX_REOPENED: usize = 8;
/// The slack of the arena in thousandths. It is less than the module's default, as the memory of a whole
/// process counts here.
const SLACK_PERMILLE: u32 = 10;

impl LargeBlocks {
    /// Returns the range that serves. Opens an arena if there is none.
    #[inline]
    pub(super) fn serving(&'static self) -> Result<&'static Range, Refusal> {
        // Before the range that serves is read, as this may change it.
        if !self.is_awake() && !self.wake() {
            return Err(Refusal::Forked);
        }
        match self.serving.load(Acquire) {
            0 => self.open(),
            number => {
                // A child by a bare system call has its parent's arena: it must not allocate or free there
                // without its parent.
                if !self.has_mark() {
                    return Err(Refusal::Forked);
                }
                self.ranges.get(number - 1).ok_or(Refusal::Other)
            }
        }
    }

    #[cold]
    fn open(&'static self) -> Result<&'static Range, Refusal> {
        if let Some(refusal) = self.refused.load(Relaxed).checked_sub(1) {
            return Err(Refusal::all().nth(refusal).unwrap_or(Refusal::Other));
        }
        // Too early: the next allocator serves this block, and the next large one tries again.
        let settings = Settings::get().ok_or(Refusal::Other)?;
        if settings.privileged {
            return Err(Refusal::Privileged);
        }
        // Takes locks of the C library, so it comes before the gate.
        self.prepare();
        let _alone = self.gate.exclusive();
        match self.serving.load(Acquire) {
            0 => {}
            number => return self.ranges.get(number - 1).ok_or(Refusal::Other),
        }
        let result = self.open_alone(&settings);
        if let Err(refusal) = result {
            // Another try at each block would cost too much; but memory may be there later.
            if !matches!(refusal, Refusal::NoMemory | Refusal::NoSpace) {
                self.refused.store(refusal as usize + 1, Relaxed);
            }
        }
        result
    }

    fn open_alone(&'static self, settings: &Settings) -> Result<&'static Range, Refusal> {
        if let (Some(report), false) = (&settings.report, are_reported()) {
            counters::attach(report.as_c_str());
        }
        let unused = |(_, range): &(usize, &Range)| range.kind() == Kind::Unused;
        let mut ranges = self.ranges.iter().enumerate();
        let (number, range) = ranges.find(unused).ok_or(Refusal::FileLost)?;
        let fd = descriptor::open(DEVICE).map_err(Refusal::of_open)?;
        let mut opened = range.open(fd);
        if opened.is_ok() && self.here.get_or_map(Fork::Wipe).is_err() {
            opened = Err(Refusal::NoMemory);
        }
        if let Err(refusal) = opened {
            descriptor::close(fd);
            return Err(refusal);
        }
        self.set_here();
        range.set_slack(SLACK_PERMILLE);
        if let Err(errno) = range.set_limit(settings.limit) {
            say(format_args!(
                "FREELIST_LIMIT={}: {}; the module's own limit holds",
                settings.limit,
                Answer(errno)
            ));
        }
        self.reuse.reset();
        self.lowest_inverted.fetch_max(!range.base(), Relaxed);
        self.highest.fetch_max(range.end(), Relaxed);
        self.serving.store(number + 1, Release);
        Ok(range)
    }

    /// Drops an arena whose file the program closed. Returns whether another one may serve.
    #[cold]
    pub(super) fn lose_file(&self) -> bool {
        let _alone = self.gate.exclusive();
        let Some(range) = self.serving_now() else {
            return true;
        };
        // Another thread may have replaced it already.
        if sys::info(range.file()).is_ok() {
            return true;
        }
        self.serving.store(0, Release);
        range.orphan();
        if self.reopened.fetch_add(1, Relaxed) >= MAX_REOPENED {
            self.refused.store(Refusal::FileLost as usize + 1, Relaxed);
            return false;
        }
        true
    }

    /// Returns the range that serves, if one does.
    pub(super) fn serving_now(&self) -> Option<&Range> {
        let number = self.serving.load(Acquire).checked_sub(1)?;
        self.ranges.get(number)
    }

    #[cold]
    pub(super) fn note_refusal(&self, refusal: Refusal, size: usize) {
        let counters = counters();
        counters.refused[refusal as usize].fetch_add(1, Relaxed);
        counters.refused_bytes.fetch_max(size as u64, Relaxed);
        let Some(settings) = Settings::get() else {
            return;
        };
        if refusal.is_lasting() && !settings.quiet && !self.said.swap(true, Relaxed) {
            let then = if settings.strict {
                "large blocks are refused (FREELIST_STRICT=1)"
            } else {
                "the C library serves large blocks"
            };
            say(format_args!("{}: {then}", refusal.reason()));
        }
    }

    /// Makes a forked child, whose blocks are in place, an ordinary process. The copy of its parent's
    /// arena serves; if there is none, the next large block opens an arena.
    pub(super) fn become_child(&self) {
        if self
            .serving_now()
            .is_some_and(|range| range.kind() != Kind::Arena)
        {
            self.serving.store(0, Release);
        }
        self.reuse.reset();
        self.set_here();
        let usage = self.live();
        counters::new_row(usage.live_blocks as u64, usage.live_bytes as u64);
    }
}
