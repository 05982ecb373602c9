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
#[doc = " `struct freelist_info`: the properties of the module and the arena (FREELIST_IOC_INFO)\n\n - `abi`: version of the contract, `FREELIST_ABI`.\n\n - `page_size`: bytes of a page; larger blocks are whole pages.\n\n - `min_shift`: the smallest size class is 1 << `min_shift` bytes.\n\n - `max_shift`: the largest size class is 1 << `max_shift` bytes.\n\n - `arena_bytes`: span of the arena's offsets, the largest useful mmap() length.\n\n - `limit_bytes`: the most bytes of pages that the arena may hold.\n\n - `features`: the FREELIST_* request flags and the FREELIST_FEATURE_* that the module supports."]
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
#[doc = " `struct freelist_alloc`: allocate one block (FREELIST_IOC_ALLOC)\n\n - `size`: in: requested bytes, at least 1.\n\n - `flags`: in: FREELIST_* request flags.\n\n - `align_shift`: in: the block is aligned to at least 1 << `align_shift` bytes; at most 30. With 0 it is aligned to its size class, at most 64 KiB.\n\n - `timeout_ns`: in: the longest wait in nanoseconds, negative for ever; 0 without `FREELIST_WAIT`. Out: the rest of it.\n\n - `offset`: out: the offset of the block in the arena, aligned as described under `align_shift`; with `FREELIST_HEADER` 16 bytes after such an offset.\n\n - `block_bytes`: out: bytes of the block: its size class up to half a page, whole pages above, a power of 2 of pages with `FREELIST_CONTIG`. The header is not included."]
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
#[doc = " `struct freelist_free`: free one block (FREELIST_IOC_FREE)\n\n - `offset`: in: the offset that FREELIST_IOC_ALLOC returned. If the block has a header that was overwritten, the call fails with EUCLEAN, and the block is freed all the same."]
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
#[doc = " `struct freelist_bulk`: allocate or free many blocks of one size (FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK)\n\n - `size`: in: requested bytes of each block, at least 1. FREE_BULK: 0.\n\n - `offsets`: in: address of an array of `count` __u64. ALLOC_BULK writes the offsets of the blocks there, FREE_BULK reads them.\n\n - `count`: in: elements of the array, at least 1.\n\n - `flags`: in: FREELIST_* request flags, for every block. FREE_BULK: 0.\n\n - `timeout_ns`: in: the longest wait in nanoseconds for all blocks together, negative for ever; 0 without `FREELIST_WAIT`, and for FREE_BULK. Out: the rest of it.\n\n - `done`: out: how many elements are done, from the first one on; in FREE_BULK also those whose header was overwritten. A call that did fewer than `count` succeeds: call again for the rest to learn why. The call fails, and leaves this field as it was, only when no element is done.\n\n - `align_shift`: in: as in [`freelist_alloc`]. FREE_BULK: 0."]
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
#[doc = " `struct freelist_limit`: set and get the arena's bounds (FREELIST_IOC_LIMIT)\n\n - `bytes`: in: the most bytes of pages that the arena may hold from now on; 0 leaves it as it is. More than the administrator's default needs CAP_SYS_RESOURCE. Free pages beyond it are returned to the system. Out: the value in force.\n\n - `span`: in: bytes of the arena's offsets, a multiple of the page size; 0 leaves it as it is. Only before the first allocation. Out: the value in force.\n\n - `slack_permille`: in: how much more than the most that its blocks ever needed the arena may hold before it reuses scattered free memory instead of growing, in thousandths, at most 1000; `FREELIST_SLACK_NONE` is no bound, 0 leaves it as it is. It holds for blocks of whole pages that are not pinned. Out: the value in force.\n\n - `reserved`: in: must be 0."]
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
#[doc = " `struct freelist_trim`: return free pages to the system (FREELIST_IOC_TRIM)\n\n - `keep_bytes`: in: the most bytes of wholly free pages that the arena keeps.\n\n - `freed_bytes`: out: bytes of the pages that were returned to the system."]
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
#[doc = " `struct freelist_resize`: make a block longer or shorter at its offset (FREELIST_IOC_RESIZE)\n\n - `offset`: in: the offset that FREELIST_IOC_ALLOC returned, of a block of whole pages without a header that is not CONTIG.\n\n - `size`: in: requested bytes, at least 1.\n\n - `flags`: in: `FREELIST_LARGER`, `FREELIST_GROW`, `FREELIST_ZERO`, `FREELIST_POPULATE`, `FREELIST_LAZY`: for the pages that are added.\n\n - `reserved`: in: must be 0.\n\n - `block_bytes`: out: bytes of the block now: whole pages, at least one.\n\n The tail of a shortened block is free at once. A block that becomes longer\n takes the free pages after it. If these are in use (ENOSPC), or the block was\n freed meanwhile (ENOENT), nothing has changed."]
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
#[doc = " `struct freelist_discard`: drop the memory of pages of live blocks (FREELIST_IOC_DISCARD)\n\n - `offset`: in: the offset of the range in the arena.\n\n - `bytes`: in: bytes of the range, at least 1. All of it has to lie in live blocks of whole pages without headers that are not CONTIG (EINVAL).\n\n The whole pages inside the range read as zero afterwards and get new memory\n when they are touched, as those of a `FREELIST_LAZY` block. They still count\n against the limits. A page that is pinned for I/O keeps its memory, and is\n zeroed."]
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
#[doc = " `struct freelist_clone`: copy an arena (FREELIST_IOC_CLONE)\n\n - `flags`: in: must be 0.\n\n - `reserved`: in: must be 0.\n\n - `fd`: out: an open file of a new arena, in the mode of this one, closed when another program is executed.\n\n - `reserved2`: in: must be 0.\n\n The new arena has the same live blocks at the same offsets, with a copy of\n their bytes, and the limit, the span and the slack of this one. It is charged\n to the caller. A block that another thread allocates, frees or resizes during\n the call may be in the copy or not; of a byte that is written meanwhile the\n copy has the old or the new value. A call that fails with ENOMEM, EDQUOT or\n EMFILE leaves nothing of the copy."]
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
#[doc = " `struct freelist_stat`: the arena's counters (FREELIST_IOC_STAT)\n\n - `live_blocks`: blocks that are live now.\n\n - `live_bytes`: bytes of these blocks, their headers included.\n\n - `free_bytes`: bytes of held pages that are in no block.\n\n - `held_bytes`: bytes of all pages that the arena holds now.\n\n - `metadata_bytes`: bytes of kernel memory for the arena's metadata.\n\n - `limit_bytes`: the most that `held_bytes` may become.\n\n - `requested_bytes`: bytes requested by all allocations so far.\n\n - `allocs`: blocks allocated so far.\n\n - `frees`: blocks freed so far.\n\n - `grows`: allocations so far that took new pages.\n\n - `splits`: free blocks and runs split so far.\n\n - `merges`: pairs of free neighbours merged so far.\n\n - `waits`: allocations so far that slept.\n\n - `timeouts`: allocations so far that timed out.\n\n - `trims`: pages returned to the system so far by request, or by an idle arena.\n\n - `shrinks`: pages returned to the system under memory pressure so far.\n\n - `failures`: allocations and frees refused so far.\n\n - `moved_bytes`: bytes of free memory that was dropped so far to back blocks elsewhere.\n\n - `faulted_bytes`: bytes that touches of lazy blocks have backed so far; 0 from a module without such blocks.\n\n - `huge_bytes`: bytes of `held_bytes` in folios of the size of a huge page.\n\n - `reserved`: 0."]
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
