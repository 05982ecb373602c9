// SPDX-License-Identifier: GPL-2.0-only

//! The device and its file operations: the kernel's entry points, with a safe interface to the rest.
//!
//! The kernel crate abstracts only misc devices (see [`CharDevice`]), without `get_unmapped_area` and
//! `poll`. So the table of operations is our own, as in binder.

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

/// The data of the device, which an open needs.
pub(crate) struct Opened {
    registry: Arc<Registry>,
    dir: Dir,
}

/// `/dev/freelist`, until it is dropped.
pub(crate) type Device = CharDevice<Opened>;

/// Registers the device, with mode 0600. Each open makes an arena of `registry`, with debugfs files in
/// `dir`. The device can be opened before this returns. `ENOMEM` when memory is short.
pub(crate) fn register(registry: Arc<Registry>, dir: Dir) -> Result<Device> {
    CharDevice::register(c"freelist", &OPERATIONS, Opened { registry, dir })
}

/// Chooses an address that is congruent to its offset modulo the huge page size, so that the core can map
/// huge pages; `None` on a kernel without them.
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
    // The uapi structures have the same layout for 32-bit programs, and pointers in them are `__u64`.
    compat_ioctl: Some(ioctl),
    mmap: Some(mmap),
    poll: Some(poll),
    get_unmapped_area: ALIGNED,
    show_fdinfo: Some(show_fdinfo),
    llseek: Some(bindings::noop_llseek),
    ..pin_init::zeroed()
});

/// Opens a file with a new arena. `ENOMEM` when memory is short. May sleep.
///
/// # Safety
///
/// The caller is the kernel, for a file of the registered device that is being opened.
unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: Only `register` makes a device with these operations. The open holds a reference to the
    // module, and the device lives as long as that.
    let device = unsafe { &*Device::of(inode) };
    // SAFETY: The file is being opened: no other thread has it.
    from_result(|| unsafe { OpenFile::open(file, &device.registry, &device.dir) }.map(|()| 0))
}

/// Closes the arena of a file after its last reference is gone. May sleep.
///
/// # Safety
///
/// The caller is the kernel, once, for a file that [`open`] has opened.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: `open` has opened the file, and its last reference is gone.
    unsafe { OpenFile::close(file) };
    0
}

/// Serves an ioctl of a 64-bit or a 32-bit program. May sleep.
///
/// # Safety
///
/// The caller is the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn ioctl(
    file: *mut bindings::file,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: The file is open for as long as the call takes. `fdget_pos` leaves out the lock of the
    // position only if no other thread has the file.
    let file = unsafe { File::from_raw_file(file) };
    // SAFETY: `open` has opened it.
    let arena = unsafe { OpenFile::of(file) };
    from_result(|| {
        ioctl::call(arena, file, command, argument)?;
        Ok(0)
    })
}

/// Returns whether a request could be served (`POLLOUT`), and enters the caller into the queues that are
/// woken when one can. May sleep.
///
/// # Safety
///
/// The caller is the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // Entered before the check: memory that is freed after that causes a wake-up.
    for queue in arena.polls() {
        // SAFETY: The table is the kernel's for this call. The queue lives as long as the arena, which
        // ends when the file is closed, and the kernel removes pollers before that.
        unsafe { queue.register(file, table) };
    }
    if arena.is_ready() {
        bindings::POLLOUT | bindings::POLLWRNORM
    } else {
        0
    }
}

/// Writes the lines of `/proc/PID/fdinfo/FD`.
///
/// # Safety
///
/// The caller is the kernel, for a file that [`open`] has opened.
unsafe extern "C" fn show_fdinfo(out: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // SAFETY: The file is the kernel's for as long as the call takes.
    let out = unsafe { SeqFile::from_raw(out) };
    show::show_fdinfo(arena, out);
}

/// Sets up a new mapping.
///
/// # Safety
///
/// The caller is the kernel, for a VMA of a file that [`open`] has opened, with `mmap_lock` held for
/// writing.
unsafe extern "C" fn mmap(file: *mut bindings::file, vma: *mut bindings::vm_area_struct) -> c_int {
    // SAFETY: `open` has opened it, and it is open for as long as the call takes.
    let arena = unsafe { OpenFile::of(File::from_raw_file(file)) };
    // SAFETY: The VMA is being set up, and no other thread has it.
    let vma = unsafe { VmaNew::from_raw(vma) };
    from_result(|| mmap::map(arena, vma).map(|()| 0))
}
