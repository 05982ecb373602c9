// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors, whose messages say what is wrong and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::flags::Flags;
use crate::sys;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A call of the contract, as error messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// FREELIST_IOC_INFO.
    Info,
    /// FREELIST_IOC_ALLOC of `size` bytes.
    Alloc {
        /// The bytes that were asked for.
        size: u64,
        /// The flags of the request.
        flags: Flags,
    },
    /// FREELIST_IOC_FREE of the block at `offset`.
    Free {
        /// The block's offset in the arena, in bytes.
        offset: u64,
    },
    /// FREELIST_IOC_ALLOC_BULK of `count` blocks of `size` bytes.
    AllocBulk {
        /// The bytes that were asked for, of each block.
        size: u64,
        /// The number of blocks that were asked for.
        count: usize,
        /// The flags of the request.
        flags: Flags,
    },
    /// FREELIST_IOC_FREE_BULK of `count` blocks.
    FreeBulk {
        /// The number of blocks that were to be freed.
        count: usize,
    },
    /// FREELIST_IOC_LIMIT; 0 changes nothing.
    Limit {
        /// The limit in bytes of pages.
        bytes: u64,
        /// The span of the arena's offsets in bytes.
        span: u64,
    },
    /// FREELIST_IOC_LIMIT, for the slack alone.
    Slack {
        /// The slack in thousandths; `None` if unlimited.
        permille: Option<u32>,
    },
    /// FREELIST_IOC_TRIM down to `keep_bytes`.
    Trim {
        /// The bytes of wholly free pages that may stay.
        keep_bytes: u64,
    },
    /// FREELIST_IOC_RESIZE of the block at `offset`.
    Resize {
        /// The block's offset in the arena, in bytes.
        offset: u64,
        /// The bytes that were asked for.
        size: u64,
    },
    /// FREELIST_IOC_DISCARD of a range.
    Discard {
        /// The beginning of the range in the arena, in bytes.
        offset: u64,
        /// The bytes of the range.
        bytes: u64,
    },
    /// FREELIST_IOC_CLONE.
    Clone,
    /// FREELIST_IOC_STAT.
    Stat,
    /// mmap() of `len` bytes from `offset`.
    Map {
        /// The beginning of the range in the arena, in bytes.
        offset: u64,
        /// The bytes of the range.
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

/// An error of this crate.
///
/// [`Error::errno`] returns the number for programs; the message is for people.
/// Converts into [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device could not be opened.
    #[error("cannot open {}: {errno}{}", path.display(), open_advice(*errno))]
    Open {
        /// The device file.
        path: PathBuf,
        /// The system's error.
        errno: Errno,
    },
    /// The device refused a call.
    #[error("{call}: {errno}{}", advice(*call, *errno))]
    Refused {
        /// The call.
        call: Call,
        /// The module's error; the contract's table lists the reasons.
        errno: Errno,
    },
    /// The range is not wholly inside of the [`crate::Mapping`].
    #[error(
        "{len} bytes at offset {offset:#x} are not in this mapping of {mapped} bytes at offset {start:#x}"
    )]
    NotMapped {
        /// The beginning of the range in the arena, in bytes.
        offset: u64,
        /// The bytes of the range.
        len: usize,
        /// The first offset of the mapping.
        start: u64,
        /// The bytes of the mapping.
        mapped: usize,
    },
    /// The alignment is not one that a [`crate::Heap`] has: its memory is aligned to 1 GiB, or less if the
    /// process has too little address space.
    #[error("cannot align to {align} bytes: not a power of 2, or more than 1 GiB or than the heap's address space")]
    Alignment {
        /// The alignment that was asked for, in bytes.
        align: usize,
    },
    /// The caller is a forked child of the process that the [`crate::Heap`] belongs to.
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

    /// Returns the kernel's error number, if the kernel refused the call.
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

/// Returns advice for a request for a block that was refused.
fn alloc_advice(size: u64, flags: Flags, errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL if size == 0 => "; ask for at least 1 byte",
        Errno::EINVAL => {
            "; a flag or a combination of flags is unknown, or the alignment is over 1 GiB"
        }
        Errno::ENOMEM if !flags.contains(Flags::GROW) => {
            "; no free block fits, and without GROW the arena allocates no pages"
        }
        Errno::ENOMEM => "; the system is short of memory",
        Errno::EAGAIN => "; it would have to wait: pass a timeout, or poll the arena",
        Errno::ETIMEDOUT => "; no block was freed in time",
        Errno::ENOSPC => "; the arena's offsets are used up: free blocks",
        Errno::EOPNOTSUPP => "; the module does not support all of these flags: see INFO.features",
        _ => "",
    }
}

/// Returns the call for one block that is refused for the same reasons as a bulk call; other calls as they are.
fn of_one_block(call: Call) -> Call {
    match call {
        Call::AllocBulk { size, flags, .. } => Call::Alloc { size, flags },
        Call::FreeBulk { .. } => Call::Free { offset: 0 },
        call => call,
    }
}

/// Returns advice for a call that was refused.
fn advice(call: Call, errno: Errno) -> &'static str {
    if let Call::AllocBulk { count: 0, .. } | Call::FreeBulk { count: 0 } = call {
        return "; the array of offsets is empty";
    }
    match (of_one_block(call), errno) {
        (_, Errno::ENOTTY) => {
            "; the file is not /dev/freelist, or the module is too old for this call"
        }
        (_, Errno::EBADF) => "; the arena has to be open for writing",
        (Call::Alloc { flags, .. }, Errno::E2BIG) if flags.contains(Flags::CONTIG) => {
            "; the largest contiguous block is a huge page, or a page where the kernel has no huge pages"
        }
        (Call::Alloc { .. } | Call::Resize { .. }, Errno::E2BIG) => {
            "; the largest block is 1 << INFO.max_shift bytes"
        }
        (Call::Alloc { .. } | Call::Resize { .. }, Errno::EDQUOT) => {
            "; it needs more than INFO.limit_bytes leaves: free blocks, or have the limit raised"
        }
        (Call::Alloc { size, flags }, errno) => alloc_advice(size, flags, errno),
        (Call::Free { .. } | Call::Resize { .. }, Errno::ENOENT) => {
            "; no live block starts there: was it freed before?"
        }
        (Call::Free { .. }, Errno::EUCLEAN) => {
            "; the block was freed, but its header had been overwritten"
        }
        (Call::Free { .. }, Errno::EINVAL) => {
            "; no block can start there: pass the offset that ALLOC returned"
        }
        (Call::Limit { .. }, Errno::EPERM) => {
            "; a limit above the module's default requires CAP_SYS_RESOURCE"
        }
        (Call::Limit { .. }, Errno::EINVAL) => {
            "; the span is set in whole pages, before the first block is allocated"
        }
        (Call::Slack { .. }, Errno::EINVAL) => "; a slack is 1 to 1000 thousandths, or no bound",
        (Call::Resize { size: 0, .. }, Errno::EINVAL) => "; ask for at least 1 byte, or FREE it",
        (Call::Resize { .. }, Errno::EINVAL) => {
            "; only blocks of whole pages can be resized, without HEADER, CONTIG or WAIT"
        }
        (Call::Discard { bytes: 0, .. }, Errno::EINVAL) => "; pass at least 1 byte",
        (Call::Discard { .. }, Errno::EINVAL) => {
            "; the range has to lie in live blocks of whole pages, without HEADER or CONTIG"
        }
        (Call::Resize { .. }, Errno::ENOSPC) => {
            "; the pages after it are in use: allocate another block, and copy"
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
             no free block fits, and without GROW the arena allocates no pages"
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
        assert!(none.ends_with("; the array of offsets is empty"), "{none}");
    }

    #[test]
    fn the_largest_contiguous_block_is_named_for_a_contiguous_request() {
        let too_large = |flags| {
            let size = 1 << 40;
            refused(Call::Alloc { size, flags }, Errno::E2BIG).to_string()
        };
        let any = too_large(Flags::DEFAULT);
        assert!(
            any.ends_with("; the largest block is 1 << INFO.max_shift bytes"),
            "{any}"
        );
        let contiguous = too_large(Flags::DEFAULT | Flags::CONTIG);
        assert!(
            contiguous.contains("; the largest contiguous block is a huge page"),
            "{contiguous}"
        );
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
             the pages after it are in use: allocate another block, and copy"
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
