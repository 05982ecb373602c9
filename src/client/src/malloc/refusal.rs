// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reasons why the arena does not serve a request.

use crate::sys::Errno;

/// The reason why the next allocator serves a large block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no device: the module is not loaded.
    NoDevice,
    /// The process has no permission to open the device.
    NoPermission,
    /// The process has no free descriptor, or no address space for the mapping.
    NoSpace,
    /// The request is above a limit of the arena or of the module.
    Limit,
    /// The system or the control group is short of memory.
    NoMemory,
    /// The request is above the largest block.
    TooLarge,
    /// The alignment would make the block larger than was asked for.
    Alignment,
    /// The program closed the device's number too often.
    FileLost,
    /// The process is a child by a bare system call, and shares its parent's arena.
    Forked,
    /// The process has more rights than its caller.
    Privileged,
    /// The device failed with an error that is none of these.
    Other,
}

impl Refusal {
    /// The number of reasons.
    pub(super) const COUNT: usize = 11;

    /// Returns all reasons, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        use Refusal::*;
        let all: [Self; Self::COUNT] = [
            NoDevice,
            NoPermission,
            NoSpace,
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

    /// Returns a description of the reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoDevice => "no device (the module is not loaded)",
            Self::NoPermission => "no permission to open the device",
            Self::NoSpace => "no number for another open file, or no address space",
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

    /// Returns whether the reason holds for all blocks of this process, and is worth a message.
    pub(super) fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::NoDevice | Self::NoPermission | Self::NoSpace | Self::FileLost | Self::Other
        )
    }

    /// Returns the reason for an error of opening the device.
    pub(super) fn of_open(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR => Self::NoDevice,
            Errno::ACCESS | Errno::PERM => Self::NoPermission,
            Errno::MFILE | Errno::NFILE => Self::NoSpace,
            Errno::NOMEM => Self::NoMemory,
            _ => Self::Other,
        }
    }

    /// Returns the reason for an error of ALLOC.
    pub(super) fn of_alloc(errno: Errno) -> Self {
        match errno {
            Errno::DQUOT => Self::Limit,
            Errno::NOMEM | Errno::INTR | Errno::AGAIN => Self::NoMemory,
            Errno::TOOBIG => Self::TooLarge,
            Errno::NOSPC => Self::NoSpace,
            // The errors of a closed number, or of another file than the device.
            Errno::BADF | Errno::NOTTY | Errno::INVAL | Errno::NOSYS => Self::FileLost,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_number_and_text() {
        for (number, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal as usize, number);
            let same = Refusal::all().filter(|other| other.reason() == refusal.reason());
            assert_eq!(same.count(), 1);
        }
    }
}
