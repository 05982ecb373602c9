// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why the arena does not serve a request.

use crate::sys::Errno;

/// Why a large block is the next allocator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no device: the module is not loaded.
    NoDevice,
    /// The device may not be opened.
    NoPermission,
    /// The process has no number for another open file, or no room for the mapping.
    NoRoom,
    /// A limit of the arena or of the module.
    Limit,
    /// The system or the control group is short of memory.
    NoMemory,
    /// More than the largest block.
    TooLarge,
    /// An alignment that would hold more than the block.
    Alignment,
    /// The program closed the device's number too often.
    FileLost,
    /// A child that was made by a bare system call shares its parent's arena.
    Forked,
    /// The process has more rights than its caller.
    Privileged,
    /// Whatever else the device answered.
    Other,
}

impl Refusal {
    /// How many there are.
    pub(super) const COUNT: usize = 11;

    /// Returns all of them, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        use Refusal::*;
        let all: [Self; Self::COUNT] = [
            NoDevice,
            NoPermission,
            NoRoom,
            Limit,
            NoMemory,
            TooLarge,
            Alignment,
            FileLost,
            Forked,
            Privileged,
            Other,
        ];
        all.into_iter()
    }

    /// Returns the reason in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoDevice => "no device (the module is not loaded)",
            Self::NoPermission => "no permission to open the device",
            Self::NoRoom => "no number for another open file, or no address space",
            Self::Limit => "above a limit",
            Self::NoMemory => "the system is short of memory",
            Self::TooLarge => "above the largest block",
            Self::Alignment => "an alignment larger than the block",
            Self::FileLost => "the program closed the device",
            Self::Forked => "a child made by a bare system call",
            Self::Privileged => "a program with more rights than its caller",
            Self::Other => "the device refused",
        }
    }

    /// Returns whether it is the same for all blocks of this process, and worth a line.
    pub(super) fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::NoDevice | Self::NoPermission | Self::NoRoom | Self::FileLost | Self::Other
        )
    }

    /// Why the device could not be opened.
    pub(super) fn of_open(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR => Self::NoDevice,
            Errno::ACCESS | Errno::PERM => Self::NoPermission,
            Errno::MFILE | Errno::NFILE => Self::NoRoom,
            Errno::NOMEM => Self::NoMemory,
            _ => Self::Other,
        }
    }

    /// Why ALLOC was refused.
    pub(super) fn of_alloc(errno: Errno) -> Self {
        match errno {
            Errno::DQUOT => Self::Limit,
            Errno::NOMEM | Errno::INTR | Errno::AGAIN => Self::NoMemory,
            Errno::TOOBIG => Self::TooLarge,
            Errno::NOSPC => Self::NoRoom,
            // What other files than the device answer, or none.
            Errno::BADF | Errno::NOTTY | Errno::INVAL | Errno::NOSYS => Self::FileLost,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_number_and_words() {
        for (number, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal as usize, number);
            let same = Refusal::all().filter(|other| other.reason() == refusal.reason());
            assert_eq!(same.count(), 1);
        }
    }
}
