// SPDX-License-Identifier: GPL-2.0-only

//! Tracepoints: the events of the system `freelist`, which perf, trace-cmd, bpftrace and tracefs enable
//! one by one. `c/freelist_trace.h` describes each event.
//!
//! A tracepoint that is off costs a no-op instruction where the kernel patches code
//! (`CONFIG_JUMP_LABEL`). The code that reports is out of line. (The kernel crate's `declare_trace!`
//! finds tracepoints in the bindings of the kernel only; those of a module are in its own bindings.)

use crate::ffi::raw;

/// Declares events and their fields, as in `c/trace.h`.
macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        pub(crate) struct $event {
            $(pub(crate) $field: $type,)*
        }

        #[cfg(CONFIG_TRACEPOINTS)]
        impl $event {
            kernel::macros::paste! {
                /// Returns whether the event is enabled.
                #[inline(always)]
                pub(crate) fn is_enabled() -> bool {
                    // SAFETY: It is a tracepoint of this module, whose key may be asked at any time.
                    unsafe {
                        kernel::jump_label::static_branch_unlikely!(
                            raw::[<__tracepoint_ $name>],
                            kernel::bindings::tracepoint,
                            key
                        )
                    }
                }

                /// Reports the event to all probes. May be called in any context.
                fn send(self) {
                    // SAFETY: May be called in any context in which RCU watches, as it does in calls,
                    // faults and reclaim. All arguments are numbers.
                    unsafe { raw::[<rust_do_trace_ $name>]($(self.$field),*) };
                }
            }
        }

        #[cfg(not(CONFIG_TRACEPOINTS))]
        impl $event {
            /// Returns false.
            #[inline(always)]
            pub(crate) fn is_enabled() -> bool {
                false
            }

            /// Does nothing.
            fn send(self) {
                $(let _ = self.$field;)*
            }
        }

        impl $event {
            /// Reports what `event` returns, if the event is enabled.
            #[inline(always)]
            pub(crate) fn report(event: impl FnOnce() -> Self) {
                if Self::is_enabled() {
                    Self::report_enabled(event);
                }
            }

            /// Reports what `event` returns.
            #[cold]
            #[inline(never)]
            pub(crate) fn report_enabled(event: impl FnOnce() -> Self) {
                event().send();
            }
        }
    )*}
}

events! {
    /// A request was served with a block of `bytes` bytes, or refused.
    Alloc = alloc {
        arena: u64,
        offset: u64,
        bytes: u64,
        size: u64,
        align_shift: u32,
        flags: u32,
        result: i32,
    }
    /// A block of `bytes` bytes was freed, or its release was refused.
    Free = free {
        arena: u64,
        offset: u64,
        bytes: u64,
        result: i32,
    }
    /// A folio of `bytes` bytes was added to an arena, or its allocation failed.
    Grow = grow {
        arena: u64,
        offset: u64,
        bytes: u64,
        order: u32,
        result: i32,
    }
    /// The memory of `bytes` bytes was to be dropped, and that of `freed` bytes was.
    Reclaim = reclaim {
        arena: u64,
        offset: u64,
        bytes: u64,
        freed: u64,
        reason: u32,
    }
    /// A page was touched, which added `bytes` bytes of new memory.
    Fault = fault {
        arena: u64,
        offset: u64,
        bytes: u64,
        write: bool,
        outcome: u32,
    }
    /// A request has waited.
    Wait = wait {
        arena: u64,
        size: u64,
        flags: u32,
        waited_ns: u64,
        result: i32,
    }
    /// An arena was to return `bytes` bytes of free memory of a node, or of any (-1), and returned `freed`.
    Shrink = shrink {
        arena: u64,
        node: i32,
        bytes: u64,
        freed: u64,
        reason: u32,
    }
}

pub(crate) use raw::{
    FREELIST_FAULT_AROUND as FAULT_AROUND,
    FREELIST_FAULT_NEW as FAULT_NEW,
    FREELIST_FAULT_PRESENT as FAULT_PRESENT,
    FREELIST_FAULT_RETRY as FAULT_RETRY,
    FREELIST_FAULT_SIGBUS as FAULT_SIGBUS,
    FREELIST_RECLAIM_CLOSE as RECLAIM_CLOSE,
    FREELIST_RECLAIM_DISCARD as RECLAIM_DISCARD,
    FREELIST_RECLAIM_FREE as RECLAIM_FREE,
    FREELIST_RECLAIM_MOVE as RECLAIM_MOVE,
    FREELIST_SHRINK_LIMIT as SHRINK_LIMIT,
    FREELIST_SHRINK_OOM as SHRINK_OOM,
    FREELIST_SHRINK_RECLAIM as SHRINK_RECLAIM, //
};

/// Returns the result of an event: 0, or a negative errno.
pub(crate) fn errno<T>(result: &kernel::error::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.to_errno(),
    }
}
