// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Made by scripts/bindings from src/uapi/freelist.h: change that, and run the script.

pub const FREELIST_ABI: u32 = 2;
pub const FREELIST_LARGER: u32 = 1;
pub const FREELIST_GROW: u32 = 2;
pub const FREELIST_WAIT: u32 = 4;
pub const FREELIST_ZERO: u32 = 8;
pub const FREELIST_CONTIG: u32 = 16;
pub const FREELIST_HEADER: u32 = 32;
pub const FREELIST_POPULATE: u32 = 64;
pub const FREELIST_LAZY: u32 = 128;
pub const FREELIST_DEFAULT: u32 = 3;
pub const FREELIST_SLACK_NONE: u32 = 4294967295;
pub const FREELIST_IOC_MAGIC: u32 = 241;
pub type __s32 = ::core::ffi::c_int;
pub type __u32 = ::core::ffi::c_uint;
pub type __s64 = ::core::ffi::c_longlong;
pub type __u64 = ::core::ffi::c_ulonglong;
#[doc = " `struct freelist_info`: what this module offers (FREELIST_IOC_INFO)\n\n - `abi`: version of the contract, `FREELIST_ABI`.\n\n - `page_size`: bytes of a page; larger blocks are whole pages.\n\n - `min_shift`: the smallest size class is 1 << `min_shift` bytes.\n\n - `max_shift`: the largest size class is 1 << `max_shift` bytes.\n\n - `arena_bytes`: span of the arena's offsets, the largest useful mmap() length.\n\n - `limit_bytes`: the most bytes of pages that the arena may hold.\n\n - `features`: the FREELIST_* request flags that this module serves, and the FREELIST_FEATURE_* that it has."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_info {
    pub abi: __u32,
    pub page_size: __u32,
    pub min_shift: __u32,
    pub max_shift: __u32,
    pub arena_bytes: __u64,
    pub limit_bytes: __u64,
    pub features: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_info"][::core::mem::size_of::<freelist_info>() - 40usize];
    ["Offset of field: freelist_info::abi"][::core::mem::offset_of!(freelist_info, abi) - 0usize];
    ["Offset of field: freelist_info::page_size"]
        [::core::mem::offset_of!(freelist_info, page_size) - 4usize];
    ["Offset of field: freelist_info::min_shift"]
        [::core::mem::offset_of!(freelist_info, min_shift) - 8usize];
    ["Offset of field: freelist_info::max_shift"]
        [::core::mem::offset_of!(freelist_info, max_shift) - 12usize];
    ["Offset of field: freelist_info::arena_bytes"]
        [::core::mem::offset_of!(freelist_info, arena_bytes) - 16usize];
    ["Offset of field: freelist_info::limit_bytes"]
        [::core::mem::offset_of!(freelist_info, limit_bytes) - 24usize];
    ["Offset of field: freelist_info::features"]
        [::core::mem::offset_of!(freelist_info, features) - 32usize];
};
#[doc = " `struct freelist_alloc`: ask for one block (FREELIST_IOC_ALLOC)\n\n - `size`: in: bytes wanted, at least 1.\n\n - `flags`: in: FREELIST_* request flags.\n\n - `align_shift`: in: the block is aligned to at least 1 << `align_shift` bytes, at most 30. Without it (0) to its size class, at most 64 KiB.\n\n - `timeout_ns`: in: nanoseconds to wait at most, negative for ever; 0 without `FREELIST_WAIT`. Out: what is left of it.\n\n - `offset`: out: where the block lies in the arena, aligned as said; with `FREELIST_HEADER` 16 bytes behind that.\n\n - `block_bytes`: out: bytes that belong to the block: its size class up to half a page, whole pages above, a power of 2 of them with `FREELIST_CONTIG`; less those of its header."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_alloc {
    pub size: __u64,
    pub flags: __u32,
    pub align_shift: __u32,
    pub timeout_ns: __s64,
    pub offset: __u64,
    pub block_bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_alloc"][::core::mem::size_of::<freelist_alloc>() - 40usize];
    ["Offset of field: freelist_alloc::size"]
        [::core::mem::offset_of!(freelist_alloc, size) - 0usize];
    ["Offset of field: freelist_alloc::flags"]
        [::core::mem::offset_of!(freelist_alloc, flags) - 8usize];
    ["Offset of field: freelist_alloc::align_shift"]
        [::core::mem::offset_of!(freelist_alloc, align_shift) - 12usize];
    ["Offset of field: freelist_alloc::timeout_ns"]
        [::core::mem::offset_of!(freelist_alloc, timeout_ns) - 16usize];
    ["Offset of field: freelist_alloc::offset"]
        [::core::mem::offset_of!(freelist_alloc, offset) - 24usize];
    ["Offset of field: freelist_alloc::block_bytes"]
        [::core::mem::offset_of!(freelist_alloc, block_bytes) - 32usize];
};
#[doc = " `struct freelist_free`: give one block back (FREELIST_IOC_FREE)\n\n - `offset`: in: the offset that FREELIST_IOC_ALLOC gave. If the block has a header and that was overwritten the answer is EUCLEAN, and the block is released all the same."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_free {
    pub offset: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_free"][::core::mem::size_of::<freelist_free>() - 8usize];
    ["Offset of field: freelist_free::offset"]
        [::core::mem::offset_of!(freelist_free, offset) - 0usize];
};
#[doc = " `struct freelist_bulk`: get or give back many blocks of one size (FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK)\n\n - `size`: in: bytes wanted of each block, at least 1. FREE_BULK: 0.\n\n - `offsets`: in: address of an array of `count` __u64. ALLOC_BULK writes the offsets of the blocks there, FREE_BULK reads them.\n\n - `count`: in: elements of the array, at least 1.\n\n - `flags`: in: FREELIST_* request flags, for every block. FREE_BULK: 0.\n\n - `timeout_ns`: in: nanoseconds to wait at most for all blocks together, negative for ever; 0 without `FREELIST_WAIT`, and for FREE_BULK. Out: what is left of it.\n\n - `done`: out: elements done, from the first; in FREE_BULK also those whose header was overwritten. Fewer than `count` is a success all the same: ask for the rest to learn why. The call is refused, and this untouched, only when not one was done.\n\n - `align_shift`: in: as in [`freelist_alloc`]. FREE_BULK: 0."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_bulk {
    pub size: __u64,
    pub offsets: __u64,
    pub count: __u32,
    pub flags: __u32,
    pub timeout_ns: __s64,
    pub done: __u32,
    pub align_shift: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_bulk"][::core::mem::size_of::<freelist_bulk>() - 40usize];
    ["Offset of field: freelist_bulk::size"][::core::mem::offset_of!(freelist_bulk, size) - 0usize];
    ["Offset of field: freelist_bulk::offsets"]
        [::core::mem::offset_of!(freelist_bulk, offsets) - 8usize];
    ["Offset of field: freelist_bulk::count"]
        [::core::mem::offset_of!(freelist_bulk, count) - 16usize];
    ["Offset of field: freelist_bulk::flags"]
        [::core::mem::offset_of!(freelist_bulk, flags) - 20usize];
    ["Offset of field: freelist_bulk::timeout_ns"]
        [::core::mem::offset_of!(freelist_bulk, timeout_ns) - 24usize];
    ["Offset of field: freelist_bulk::done"]
        [::core::mem::offset_of!(freelist_bulk, done) - 32usize];
    ["Offset of field: freelist_bulk::align_shift"]
        [::core::mem::offset_of!(freelist_bulk, align_shift) - 36usize];
};
#[doc = " `struct freelist_limit`: set and get the arena's bounds (FREELIST_IOC_LIMIT)\n\n - `bytes`: in: the most bytes of pages that the arena may hold from now on, 0 to leave it as it is. More than the administrator's default needs CAP_SYS_RESOURCE. What is held beyond it is given back as far as it is free. Out: what is in force.\n\n - `span`: in: bytes of the arena's offsets, in whole pages, before the first block was asked for only; 0 to leave it as it is. Out: what is in force.\n\n - `slack_permille`: in: how much more than the most that its blocks ever needed the arena may hold before it reuses scattered free memory instead of growing, in thousandths, at most 1000; `FREELIST_SLACK_NONE` is without a bound, 0 leaves it as it is. Out: what is in force. A bound for blocks of whole pages that nobody pins.\n\n - `reserved`: in: must be 0."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_limit {
    pub bytes: __u64,
    pub span: __u64,
    pub slack_permille: __u32,
    pub reserved: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_limit"][::core::mem::size_of::<freelist_limit>() - 24usize];
    ["Offset of field: freelist_limit::bytes"]
        [::core::mem::offset_of!(freelist_limit, bytes) - 0usize];
    ["Offset of field: freelist_limit::span"]
        [::core::mem::offset_of!(freelist_limit, span) - 8usize];
    ["Offset of field: freelist_limit::slack_permille"]
        [::core::mem::offset_of!(freelist_limit, slack_permille) - 16usize];
    ["Offset of field: freelist_limit::reserved"]
        [::core::mem::offset_of!(freelist_limit, reserved) - 20usize];
};
#[doc = " `struct freelist_trim`: give free pages back (FREELIST_IOC_TRIM)\n\n - `keep_bytes`: in: bytes of wholly free pages that may stay.\n\n - `freed_bytes`: out: bytes of the pages that were given back to the system."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_trim {
    pub keep_bytes: __u64,
    pub freed_bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_trim"][::core::mem::size_of::<freelist_trim>() - 16usize];
    ["Offset of field: freelist_trim::keep_bytes"]
        [::core::mem::offset_of!(freelist_trim, keep_bytes) - 0usize];
    ["Offset of field: freelist_trim::freed_bytes"]
        [::core::mem::offset_of!(freelist_trim, freed_bytes) - 8usize];
};
#[doc = " `struct freelist_resize`: make a block longer or shorter where it is (FREELIST_IOC_RESIZE)\n\n - `offset`: in: the offset that FREELIST_IOC_ALLOC gave, of a block of whole pages without a header that is not CONTIG.\n\n - `size`: in: bytes wanted, at least 1.\n\n - `flags`: in: `FREELIST_LARGER`, `FREELIST_GROW`, `FREELIST_ZERO`, `FREELIST_POPULATE`, `FREELIST_LAZY`: of what is added to the block.\n\n - `reserved`: in: must be 0.\n\n - `block_bytes`: out: bytes that belong to the block now: whole pages, at least one.\n\n The tail of a block that becomes shorter is free at once. One that becomes\n longer takes the free pages behind it; where these are in use (ENOSPC), or the\n block went meanwhile (ENOENT), nothing has changed."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_resize {
    pub offset: __u64,
    pub size: __u64,
    pub flags: __u32,
    pub reserved: __u32,
    pub block_bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_resize"][::core::mem::size_of::<freelist_resize>() - 32usize];
    ["Offset of field: freelist_resize::offset"]
        [::core::mem::offset_of!(freelist_resize, offset) - 0usize];
    ["Offset of field: freelist_resize::size"]
        [::core::mem::offset_of!(freelist_resize, size) - 8usize];
    ["Offset of field: freelist_resize::flags"]
        [::core::mem::offset_of!(freelist_resize, flags) - 16usize];
    ["Offset of field: freelist_resize::reserved"]
        [::core::mem::offset_of!(freelist_resize, reserved) - 20usize];
    ["Offset of field: freelist_resize::block_bytes"]
        [::core::mem::offset_of!(freelist_resize, block_bytes) - 24usize];
};
#[doc = " `struct freelist_discard`: let pages of live blocks lose their memory (FREELIST_IOC_DISCARD)\n\n - `offset`: in: where the range begins in the arena.\n\n - `bytes`: in: its length, at least 1. All of it has to lie inside live blocks of whole pages without headers that are not CONTIG (EINVAL).\n\n The whole pages inside the range read as zero afterwards and get new memory\n when they are touched, as those of a `FREELIST_LAZY` block; their room under the\n limits stays the block's. A page that is pinned for I/O keeps its memory, and is\n zeroed."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_discard {
    pub offset: __u64,
    pub bytes: __u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_discard"][::core::mem::size_of::<freelist_discard>() - 16usize];
    ["Offset of field: freelist_discard::offset"]
        [::core::mem::offset_of!(freelist_discard, offset) - 0usize];
    ["Offset of field: freelist_discard::bytes"]
        [::core::mem::offset_of!(freelist_discard, bytes) - 8usize];
};
#[doc = " `struct freelist_clone`: copy an arena (FREELIST_IOC_CLONE)\n\n - `flags`: in: must be 0.\n\n - `reserved`: in: must be 0.\n\n - `fd`: out: an open file of a new arena, in the mode of this one, closed when another program is executed.\n\n - `reserved2`: in: must be 0.\n\n The new arena has the same live blocks at the same offsets, with a copy of\n what is in them, and the limit, the span and the slack of this one. It is\n the caller's, who is charged for it. A block that another thread allocates,\n frees or resizes during the call is in the copy, or not; of what is written\n meanwhile each byte is the old one or the new one. ENOMEM, EDQUOT or EMFILE:\n nothing is left of the copy."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_clone {
    pub flags: __u32,
    pub reserved: __u32,
    pub fd: __s32,
    pub reserved2: __u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_clone"][::core::mem::size_of::<freelist_clone>() - 16usize];
    ["Offset of field: freelist_clone::flags"]
        [::core::mem::offset_of!(freelist_clone, flags) - 0usize];
    ["Offset of field: freelist_clone::reserved"]
        [::core::mem::offset_of!(freelist_clone, reserved) - 4usize];
    ["Offset of field: freelist_clone::fd"][::core::mem::offset_of!(freelist_clone, fd) - 8usize];
    ["Offset of field: freelist_clone::reserved2"]
        [::core::mem::offset_of!(freelist_clone, reserved2) - 12usize];
};
#[doc = " `struct freelist_stat`: the arena's counters (FREELIST_IOC_STAT)\n\n - `live_blocks`: blocks handed out now.\n\n - `live_bytes`: bytes of those blocks (their block_bytes, and their headers).\n\n - `free_bytes`: bytes of pages held that no block occupies.\n\n - `held_bytes`: bytes of all pages that the arena has now.\n\n - `metadata_bytes`: kernel memory behind the arena beside its pages.\n\n - `limit_bytes`: the most that `held_bytes` may become.\n\n - `requested_bytes`: bytes asked for by all allocations so far.\n\n - `allocs`: blocks handed out so far.\n\n - `frees`: blocks given back so far.\n\n - `grows`: allocations so far that took new pages.\n\n - `splits`: free blocks and runs divided so far.\n\n - `merges`: pairs of free neighbours joined so far.\n\n - `waits`: allocations so far that slept.\n\n - `timeouts`: allocations so far whose time ran out.\n\n - `trims`: pages given back to the system by request so far.\n\n - `shrinks`: pages given back under memory pressure so far.\n\n - `failures`: allocations and frees refused so far.\n\n - `moved_bytes`: moved from free memory elsewhere to other blocks so far.\n\n - `faulted_bytes`: memory that touches of lazy blocks brought so far; 0 from a module without such blocks.\n\n - `huge_bytes`: of `held_bytes`, in folios of the size of a huge page.\n\n - `reserved`: 0."]
#[repr(C)]
#[derive(Debug, Default, Copy, Clone, PartialEq, Eq)]
pub struct freelist_stat {
    pub live_blocks: __u64,
    pub live_bytes: __u64,
    pub free_bytes: __u64,
    pub held_bytes: __u64,
    pub metadata_bytes: __u64,
    pub limit_bytes: __u64,
    pub requested_bytes: __u64,
    pub allocs: __u64,
    pub frees: __u64,
    pub grows: __u64,
    pub splits: __u64,
    pub merges: __u64,
    pub waits: __u64,
    pub timeouts: __u64,
    pub trims: __u64,
    pub shrinks: __u64,
    pub failures: __u64,
    pub moved_bytes: __u64,
    pub faulted_bytes: __u64,
    pub huge_bytes: __u64,
    pub reserved: [__u64; 12usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of freelist_stat"][::core::mem::size_of::<freelist_stat>() - 256usize];
    ["Offset of field: freelist_stat::live_blocks"]
        [::core::mem::offset_of!(freelist_stat, live_blocks) - 0usize];
    ["Offset of field: freelist_stat::live_bytes"]
        [::core::mem::offset_of!(freelist_stat, live_bytes) - 8usize];
    ["Offset of field: freelist_stat::free_bytes"]
        [::core::mem::offset_of!(freelist_stat, free_bytes) - 16usize];
    ["Offset of field: freelist_stat::held_bytes"]
        [::core::mem::offset_of!(freelist_stat, held_bytes) - 24usize];
    ["Offset of field: freelist_stat::metadata_bytes"]
        [::core::mem::offset_of!(freelist_stat, metadata_bytes) - 32usize];
    ["Offset of field: freelist_stat::limit_bytes"]
        [::core::mem::offset_of!(freelist_stat, limit_bytes) - 40usize];
    ["Offset of field: freelist_stat::requested_bytes"]
        [::core::mem::offset_of!(freelist_stat, requested_bytes) - 48usize];
    ["Offset of field: freelist_stat::allocs"]
        [::core::mem::offset_of!(freelist_stat, allocs) - 56usize];
    ["Offset of field: freelist_stat::frees"]
        [::core::mem::offset_of!(freelist_stat, frees) - 64usize];
    ["Offset of field: freelist_stat::grows"]
        [::core::mem::offset_of!(freelist_stat, grows) - 72usize];
    ["Offset of field: freelist_stat::splits"]
        [::core::mem::offset_of!(freelist_stat, splits) - 80usize];
    ["Offset of field: freelist_stat::merges"]
        [::core::mem::offset_of!(freelist_stat, merges) - 88usize];
    ["Offset of field: freelist_stat::waits"]
        [::core::mem::offset_of!(freelist_stat, waits) - 96usize];
    ["Offset of field: freelist_stat::timeouts"]
        [::core::mem::offset_of!(freelist_stat, timeouts) - 104usize];
    ["Offset of field: freelist_stat::trims"]
        [::core::mem::offset_of!(freelist_stat, trims) - 112usize];
    ["Offset of field: freelist_stat::shrinks"]
        [::core::mem::offset_of!(freelist_stat, shrinks) - 120usize];
    ["Offset of field: freelist_stat::failures"]
        [::core::mem::offset_of!(freelist_stat, failures) - 128usize];
    ["Offset of field: freelist_stat::moved_bytes"]
        [::core::mem::offset_of!(freelist_stat, moved_bytes) - 136usize];
    ["Offset of field: freelist_stat::faulted_bytes"]
        [::core::mem::offset_of!(freelist_stat, faulted_bytes) - 144usize];
    ["Offset of field: freelist_stat::huge_bytes"]
        [::core::mem::offset_of!(freelist_stat, huge_bytes) - 152usize];
    ["Offset of field: freelist_stat::reserved"]
        [::core::mem::offset_of!(freelist_stat, reserved) - 160usize];
};
pub const FREELIST_FEATURE_ALIGN: __u64 = 4294967296;
pub const FREELIST_FEATURE_RESIZE: __u64 = 8589934592;
pub const FREELIST_FEATURE_SLACK: __u64 = 17179869184;
pub const FREELIST_FEATURE_MOVED: __u64 = 34359738368;
pub const FREELIST_FEATURE_HUGE: __u64 = 68719476736;
pub const FREELIST_FEATURE_DISCARD: __u64 = 137438953472;
pub const FREELIST_FEATURE_CLONE: __u64 = 274877906944;
pub const FREELIST_IOC_INFO: __u32 = 2150166784;
pub const FREELIST_IOC_ALLOC: __u32 = 3223908609;
pub const FREELIST_IOC_FREE: __u32 = 1074327810;
pub const FREELIST_IOC_ALLOC_BULK: __u32 = 3223908611;
pub const FREELIST_IOC_FREE_BULK: __u32 = 3223908612;
pub const FREELIST_IOC_LIMIT: __u32 = 3222860037;
pub const FREELIST_IOC_TRIM: __u32 = 3222335750;
pub const FREELIST_IOC_STAT: __u32 = 2164322567;
pub const FREELIST_IOC_RESIZE: __u32 = 3223384328;
pub const FREELIST_IOC_DISCARD: __u32 = 1074852105;
pub const FREELIST_IOC_CLONE: __u32 = 3222335754;
