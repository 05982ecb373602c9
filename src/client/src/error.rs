// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors that say what is wrong and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::flags::Flags;
use crate::sys;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// A call of the contract, as named in error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// FREELIST_IOC_INFO.
    Info,
    /// FREELIST_IOC_ALLOC of `size` bytes.
    Alloc {
        /// Bytes asked for.
        size: u64,
        /// What the request allowed.
        flags: Flags,
    },
    /// FREELIST_IOC_FREE of the block at `offset`.
    Free {
        /// Offset in the arena, in bytes.
        offset: u64,
    },
    /// FREELIST_IOC_ALLOC_BULK of `count` blocks of `size` bytes.
    AllocBulk {
        /// Bytes asked for, of each.
        size: u64,
        /// Blocks asked for.
        count: usize,
        /// What the request allowed.
        flags: Flags,
    },
    /// FREELIST_IOC_FREE_BULK of `count` blocks.
    FreeBulk {
        /// Blocks given back.
        count: usize,
    },
    /// FREELIST_IOC_LIMIT; what is 0 is left as it is.
    Limit {
        /// Bytes of pages that the arena may hold.
        bytes: u64,
        /// Bytes of its offsets.
        span: u64,
    },
    /// FREELIST_IOC_LIMIT, for the slack alone.
    Slack {
        /// In thousandths; `None` is no bound.
        permille: Option<u32>,
    },
    /// FREELIST_IOC_TRIM down to `keep_bytes`.
    Trim {
        /// Bytes of wholly free pages that may stay.
        keep_bytes: u64,
    },
    /// FREELIST_IOC_RESIZE of the block at `offset`.
    Resize {
        /// Offset in the arena, in bytes.
        offset: u64,
        /// Bytes asked for.
        size: u64,
    },
    /// FREELIST_IOC_DISCARD of a range.
    Discard {
        /// Offset in the arena, in bytes.
        offset: u64,
        /// Bytes from there on.
        bytes: u64,
    },
    /// FREELIST_IOC_CLONE.
    Clone,
    /// FREELIST_IOC_STAT.
    Stat,
    /// mmap() of `len` bytes from `offset`.
    Map {
        /// Offset in the arena, in bytes.
        offset: u64,
        /// Bytes to map.
        len: u64,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Info => write!(f, "INFO"),
            Call::Alloc { size, flags } => write!(f, "ALLOC of {size} bytes ({flags})"),
            Call::Free { offset } => write!(f, "FREE of offset {offset:#x}"),
            Call::AllocBulk { size, count, flags } => {
                write!(f, "ALLOC_BULK of {count} blocks of {size} bytes ({flags})")
            }
            Call::FreeBulk { count } => write!(f, "FREE_BULK of {count} blocks"),
            Call::Limit { bytes, span } => {
                write!(f, "LIMIT to {bytes} bytes held, {span} bytes of offsets")
            }
            Call::Slack {
                permille: Some(permille),
            } => write!(f, "LIMIT to a slack of {permille} thousandths"),
            Call::Slack { permille: None } => write!(f, "LIMIT to no bound of the slack"),
            Call::Trim { keep_bytes } => write!(f, "TRIM to {keep_bytes} free bytes"),
            Call::Resize { offset, size } => {
                write!(f, "RESIZE of offset {offset:#x} to {size} bytes")
            }
            Call::Discard { offset, bytes } => {
                write!(f, "DISCARD of {bytes} bytes at offset {offset:#x}")
            }
            Call::Clone => write!(f, "CLONE"),
            Call::Stat => write!(f, "STAT"),
            Call::Map { offset, len } => write!(f, "mmap of {len} bytes at offset {offset:#x}"),
        }
    }
}

/// What went wrong.
///
/// [`Error::errno`] gives the number for programs; the message is for people.
/// Converts into [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {}: {errno}{}", path.display(), open_advice(*errno))]
    Open {
        /// The device file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The device refused a call.
    #[error("{call}: {errno}{}", advice(*call, *errno))]
    Refused {
        /// The call.
        call: Call,
        /// Why; the contract's table says when.
        errno: Errno,
    },
    /// A range that is not wholly inside of the [`crate::Mapping`].
    #[error(
        "{len} bytes at offset {offset:#x} are not in this mapping of {mapped} bytes at offset {start:#x}"
    )]
    NotMapped {
        /// Offset in the arena, in bytes.
        offset: u64,
        /// Bytes to access.
        len: usize,
        /// First offset of the mapping.
        start: u64,
        /// Bytes of the mapping.
        mapped: usize,
    },
    /// An alignment that a [`crate::Heap`] cannot give: its memory is aligned to 1 GiB,
    /// or to as much as the process may have addresses for.
    #[error("an alignment to {align} bytes is no power of 2, or more than 1 GiB or the heap's addresses")]
    Alignment {
        /// What was asked for, in bytes.
        align: usize,
    },
    /// A request to a [`crate::Heap`] by a forked child of the process that it
    /// belongs to.
    #[error("the heap belongs to the process that this one was forked from")]
    Forked,
}

impl Error {
    pub(crate) fn refused(call: Call) -> impl FnOnce(sys::Errno) -> Self {
        move |errno| Error::Refused {
            call,
            errno: Errno::from_raw(errno.raw_os_error()),
        }
    }

    /// Returns the kernel's number, where the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Open { errno, .. } | Error::Refused { errno, .. } => Some(*errno),
            Error::NotMapped { .. } | Error::Alignment { .. } | Error::Forked => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.errno() {
            Some(errno) => io::Error::from(errno).kind(),
            None => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

fn open_advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
            "; is the module loaded (modprobe freelist)?"
        }
        Errno::EACCES | Errno::EPERM => {
            "; its group may: usermod --append --groups freelist USER, and log in again"
        }
        _ => "",
    }
}

/// Returns what to do about a request for a block that was refused.
fn alloc_advice(size: u64, flags: Flags, errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL if size == 0 => "; ask for at least 1 byte",
        Errno::EINVAL => {
            "; a flag or a combination of flags is unknown, or the alignment is over 1 GiB"
        }
        Errno::ENOMEM if !flags.contains(Flags::GROW) => {
            "; no free block serves it, and without GROW the arena takes no pages"
        }
        Errno::ENOMEM => "; the system is short of memory",
        Errno::EAGAIN => "; it would have to wait: give it a timeout, or poll the arena",
        Errno::ETIMEDOUT => "; no block came back in time",
        Errno::ENOSPC => "; the arena's offsets are used up: free blocks",
        Errno::EOPNOTSUPP => {
            "; the module does not serve every flag of it: INFO.features tells which"
        }
        _ => "",
    }
}

/// Returns what to do about a call that was refused.
fn advice(call: Call, errno: Errno) -> &'static str {
    // Each block of many is asked for and given back like one.
    let call = match call {
        Call::AllocBulk { count: 0, .. } | Call::FreeBulk { count: 0 } => {
            return "; of no blocks at all"
        }
        Call::AllocBulk { size, flags, .. } => Call::Alloc { size, flags },
        Call::FreeBulk { .. } => Call::Free { offset: 0 },
        call => call,
    };
    match (call, errno) {
        (_, Errno::ENOTTY) => "; this file is not /dev/freelist, or the module is older",
        (_, Errno::EBADF) => "; the arena has to be open for writing",
        (Call::Alloc { .. } | Call::Resize { .. }, Errno::E2BIG) => {
            "; the largest block is 1 << INFO.max_shift bytes"
        }
        (Call::Alloc { .. } | Call::Resize { .. }, Errno::EDQUOT) => {
            "; it needs more than INFO.limit_bytes leaves: free blocks, or have the limit raised"
        }
        (Call::Alloc { size, flags }, errno) => alloc_advice(size, flags, errno),
        (Call::Free { .. } | Call::Resize { .. }, Errno::ENOENT) => {
            "; no live block is there: freed before?"
        }
        (Call::Free { .. }, Errno::EUCLEAN) => {
            "; it was released, but something was written before its beginning"
        }
        (Call::Free { .. }, Errno::EINVAL) => {
            "; it is no block's start: give back the offset that ALLOC gave"
        }
        (Call::Limit { .. }, Errno::EPERM) => {
            "; beyond the module's default it takes CAP_SYS_RESOURCE"
        }
        (Call::Limit { .. }, Errno::EINVAL) => {
            "; offsets are bounded in whole pages, before the first block is asked for"
        }
        (Call::Slack { .. }, Errno::EINVAL) => "; a slack is 1 to 1000 thousandths, or no bound",
        (Call::Resize { size: 0, .. }, Errno::EINVAL) => "; ask for at least 1 byte, or FREE it",
        (Call::Resize { .. }, Errno::EINVAL) => {
            "; only blocks of whole pages can be resized, without HEADER, CONTIG or WAIT"
        }
        (Call::Discard { bytes: 0, .. }, Errno::EINVAL) => "; name at least 1 byte",
        (Call::Discard { .. }, Errno::EINVAL) => {
            "; the range has to lie in live blocks of whole pages, without HEADER or CONTIG"
        }
        (Call::Resize { .. }, Errno::ENOSPC) => {
            "; what lies behind it is in use: ask for another block, and copy"
        }
        (Call::Clone, Errno::ENOMEM) => "; the system is short of memory for a copy",
        (Call::Clone, Errno::EDQUOT) => {
            "; the copy needs more than the module's limit leaves: free blocks, or have it raised"
        }
        (Call::Map { .. }, Errno::EINVAL) => {
            "; map whole pages, at least one, that end within INFO.arena_bytes"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: Call, errno: Errno) -> Error {
        Error::Refused { call, errno }
    }

    #[test]
    fn a_message_says_what_is_wrong_and_what_to_do() {
        let call = Call::Alloc {
            size: 64,
            flags: Flags::LARGER,
        };
        let error = refused(call, Errno::ENOMEM);
        assert_eq!(
            error.to_string(),
            "ALLOC of 64 bytes (LARGER): ENOMEM: Out of memory; \
             no free block serves it, and without GROW the arena takes no pages"
        );
        assert_eq!(error.errno(), Some(Errno::ENOMEM));
    }

    #[test]
    fn many_blocks_are_refused_for_the_reasons_of_one() {
        let call = Call::AllocBulk {
            size: 0,
            count: 3,
            flags: Flags::DEFAULT,
        };
        let message = refused(call, Errno::EINVAL).to_string();
        assert!(message.starts_with("ALLOC_BULK of 3 blocks of 0 bytes (LARGER|GROW): EINVAL"));
        assert!(message.ends_with("; ask for at least 1 byte"), "{message}");
        let none = refused(Call::FreeBulk { count: 0 }, Errno::EINVAL).to_string();
        assert!(none.ends_with("; of no blocks at all"), "{none}");
    }

    #[test]
    fn a_resize_and_a_slack_are_refused_for_reasons_of_their_own() {
        let resize = |size, errno| {
            let call = Call::Resize {
                offset: 65536,
                size,
            };
            refused(call, errno).to_string()
        };
        assert_eq!(
            resize(8192, Errno::ENOSPC),
            "RESIZE of offset 0x10000 to 8192 bytes: ENOSPC: No space left on device; \
             what lies behind it is in use: ask for another block, and copy"
        );
        assert!(resize(0, Errno::EINVAL).ends_with("; ask for at least 1 byte, or FREE it"));
        let call = Call::Slack {
            permille: Some(1001),
        };
        assert_eq!(
            refused(call, Errno::EINVAL).to_string(),
            "LIMIT to a slack of 1001 thousandths: EINVAL: Invalid argument; \
             a slack is 1 to 1000 thousandths, or no bound"
        );
    }

    #[test]
    fn an_error_becomes_an_io_error_of_its_kind() {
        let error = refused(Call::Free { offset: 32 }, Errno::ENOENT);
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("freed before"));
    }
}
