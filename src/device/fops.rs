// SPDX-License-Identifier: GPL-2.0

//! The device and its file operations: what the kernel calls, made safe for the rest.
//!
//! The kernel crate has no character device but the misc device (see [`CharDevice`]), whose table has
//! neither `get_unmapped_area` nor `poll`, so the table is our own, as in binder.

use crate::{
    arena::registry::Registry,
    debug::show,
    device::{
        file::OpenFile,
        ioctl,
        mmap, //
    },
    ffi::{
        char_device::CharDevice,
        debugfs::Dir,
        operations::{
            self,
            Table, //
        }, //
    }, //
};
use kernel::{
    bindings,
    error::from_result,
    ffi::{
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    fs::File,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::Arc, //
};

/// What an open of the device needs.
pub(crate) struct Opened {
    registry: Arc<Registry>,
    dir: Dir,
}

/// `/dev/freelist`, until it is dropped.
pub(crate) type Device = CharDevice<Opened>;

/// Makes the device, for root only. Whoever opens it gets an arena of `registry`, which is shown in
/// `dir`. It can be opened before this returns.
pub(crate) fn register(registry: Arc<Registry>, dir: Dir) -> Result<Device> {
    CharDevice::register(c"freelist", &OPERATIONS, Opened { registry, dir })
}

/// Finds an address that is aligned as its offset is, up to a huge page, so that the core can map
/// these: where there are none, any will do.
#[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
const ALIGNED: Option<GetUnmappedArea> = Some(bindings::thp_get_unmapped_area);
#[cfg(not(CONFIG_TRANSPARENT_HUGEPAGE))]
const ALIGNED: Option<GetUnmappedArea> = None;

/// `get_unmapped_area` of the file operations.
type GetUnmappedArea = unsafe extern "C" fn(
    file: *mut bindings::file,
    address: c_ulong,
    len: c_ulong,
    pgoff: c_ulong,
    flags: c_ulong,
) -> c_ulong;

static OPERATIONS: Table<bindings::file_operations> = Table(bindings::file_operations {
    owner: operations::this_module(),
    open: Some(open),
    release: Some(release),
    unlocked_ioctl: Some(ioctl),
    // The structures have one layout, and an address is an address.
    compat_ioctl: Some(ioctl),
    mmap: Some(mmap),
    poll: Some(poll),
    get_unmapped_area: ALIGNED,
    show_fdinfo: Some(show_fdinfo),
    llseek: Some(bindings::noop_llseek),
    ..pin_init::zeroed()
});

/// A new arena for a new open file.
///
/// # Safety
///
/// Called by the kernel, for a file of the registered device that is being opened.
unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: Only `register` makes one with our operations. It is there while a file of it is being
    // opened: that keeps the module.
    let device = unsafe { &*Device::of(inode) };
    // SAFETY: The file is not open yet: nobody else sees it.
    from_result(|| unsafe { OpenFile::open(file, &device.registry, &device.dir) }.map(|()| 0))
}

/// The last reference to an open file goes.
///
/// # Safety
///
/// Called by the kernel, once, for a file that [`open`] has opened.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: `open` has opened it, and this is the last that is heard of the file.
    unsafe { OpenFile::close(file) };
    0
}

/// A call, also one of a 32-bit program.
///
/// # Safety
///
/// Called by the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn ioctl(
    file: *mut bindings::file,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: The file is open for as long as the call takes, and nobody seeks in it.
    let file = unsafe { File::from_raw_file(file) };
    // SAFETY: `open` has opened it.
    let arena = unsafe { OpenFile::of(file) };
    from_result(|| {
        ioctl::call(arena, file, command, argument)?;
        Ok(0)
    })
}

/// Somebody wants to know whether a request could be served, or to be told when.
///
/// # Safety
///
/// Called by the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // Before the look, so that nothing is missed after it.
    for queue in arena.polls() {
        // SAFETY: The table is the kernel's for this call. The queue lives as long as the arena,
        // which ends when the file is closed, and who polls it is removed before that.
        unsafe { queue.register(file, table) };
    }
    if arena.is_ready() {
        bindings::POLLOUT | bindings::POLLWRNORM
    } else {
        0
    }
}

/// Shows an open file in `/proc`.
///
/// # Safety
///
/// Called by the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn show_fdinfo(out: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // SAFETY: The caller's for as long as the call takes.
    let out = unsafe { SeqFile::from_raw(out) };
    show::show_fdinfo(arena, out);
}

/// A new mapping.
///
/// # Safety
///
/// Called by the kernel, for an area of a file that [`open`] has opened, with its lock held.
unsafe extern "C" fn mmap(file: *mut bindings::file, vma: *mut bindings::vm_area_struct) -> c_int {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // SAFETY: The area is being made: it is ours to set up.
    let vma = unsafe { VmaNew::from_raw(vma) };
    from_result(|| mmap::map(arena, vma).map(|()| 0))
}
