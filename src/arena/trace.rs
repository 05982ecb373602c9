// SPDX-License-Identifier: GPL-2.0-only

//! Events of an arena for tracepoints. A function does nothing while its event is disabled.

use super::{
    request::AllocOptions,
    Arena, //
};
use crate::{
    engine::HEADER_BYTES,
    ffi::{
        task,
        trace, //
    },
    mm::statistics::Node, //
};
use core::ops::Range;
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*, //
};

/// Returns the bytes of `pages` pages.
fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_SIZE as u64)
}

impl Arena {
    /// Traces a request that has got a block, its header included in the range, or was refused.
    pub(super) fn trace_alloc(&self, options: &AllocOptions, result: &Result<Range<u64>>) {
        let Ok(extent) = result else {
            return self.trace_refusal(options, result);
        };
        let header = if options.request.headed {
            HEADER_BYTES
        } else {
            0
        };
        let bytes = extent.end - extent.start - header;
        self.trace_request(options, extent.start + header, bytes, 0);
    }

    /// Traces a request if it was refused.
    pub(super) fn trace_refusal<T>(&self, options: &AllocOptions, result: &Result<T>) {
        if let Err(error) = result {
            self.trace_request(options, 0, 0, error.to_errno());
        }
    }

    /// Traces blocks of one size that are live now, by the offsets that their caller has.
    pub(super) fn trace_batch(&self, options: &AllocOptions, offsets: Option<&[u64]>, bytes: u64) {
        if trace::Alloc::is_enabled() {
            for offset in offsets.unwrap_or_default() {
                self.trace_request(options, *offset, bytes, 0);
            }
        }
    }

    fn trace_request(&self, options: &AllocOptions, offset: u64, bytes: u64, result: i32) {
        trace::Alloc::report(|| trace::Alloc {
            arena: self.id,
            offset,
            bytes,
            size: options.request.size,
            align_shift: options.request.align_shift,
            flags: options.flags(),
            result,
        });
    }

    /// Traces a release.
    pub(super) fn trace_free<T>(&self, offset: u64, bytes: u64, result: &Result<T>) {
        trace::Free::report(|| trace::Free {
            arena: self.id,
            offset,
            bytes,
            result: trace::errno(result),
        });
    }

    /// Traces a folio that was added to the arena, or could not be allocated.
    pub(super) fn trace_grow<T>(&self, page: u32, order: u32, result: &Result<T>) {
        trace::Grow::report(|| trace::Grow {
            arena: self.id,
            offset: u64::from(page) << PAGE_SHIFT,
            bytes: bytes(1 << order),
            order,
            result: trace::errno(result),
        });
    }

    /// Traces a range whose memory was to be dropped, and how many of its pages were.
    pub(super) fn trace_reclaim(&self, range: Range<u32>, left: u32, reason: u32) {
        trace::Reclaim::report(|| trace::Reclaim {
            arena: self.id,
            offset: u64::from(range.start) << PAGE_SHIFT,
            bytes: bytes(range.len() as u64),
            freed: bytes(left.into()),
            reason,
        });
    }

    /// Traces the end of the arena, which held so many bytes.
    pub(super) fn trace_close(&self, held: u64) {
        trace::Reclaim::report(|| trace::Reclaim {
            arena: self.id,
            offset: 0,
            bytes: held,
            freed: held,
            reason: trace::RECLAIM_CLOSE,
        });
    }

    /// Traces a request that has waited since `start`, in nanoseconds of the monotonic clock; nothing
    /// where that was not read.
    pub(super) fn trace_wait<T>(
        &self,
        options: &AllocOptions,
        start: Option<i64>,
        result: &Result<T>,
    ) {
        let Some(start) = start else {
            return;
        };
        trace::Wait::report(|| trace::Wait {
            arena: self.id,
            size: options.request.size,
            flags: options.flags(),
            waited_ns: task::now_ns().abs_diff(start),
            result: trace::errno(result),
        });
    }

    /// Traces how many free pages were to be returned, of a node or of any, and how many were.
    pub(super) fn trace_shrink(&self, node: Option<Node>, max_pages: u64, freed: u64, reason: u32) {
        trace::Shrink::report(|| trace::Shrink {
            arena: self.id,
            node: node.map_or(-1, |node| node.index() as i32),
            bytes: bytes(max_pages),
            freed: bytes(freed),
            reason,
        });
    }
}
