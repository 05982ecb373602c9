// SPDX-License-Identifier: GPL-2.0-only

//! Files in debugfs.
//!
//! The files of the kernel crate (7.3) have no owner: closing one after its module was unloaded uses
//! freed memory (tried). An open file of this module keeps the module loaded.

use crate::ffi::{
    operations,
    raw, //
};
use core::marker::PhantomData;
#[cfg(CONFIG_FAULT_INJECTION)]
use kernel::sync::atomic::Atomic;
use kernel::{
    bindings,
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    sync::Arc, //
};

/// A directory or a file of debugfs, removed on drop. A failure of debugfs to create one is ignored,
/// as debugfs recommends.
///
/// # Invariants
///
/// `dentry` was created by debugfs for this object and exists until it is removed, or it is a null or
/// error pointer, which debugfs ignores. Its parent exists as long.
struct Entry {
    dentry: *mut raw::dentry,
    _parent: Option<Dir>,
}

// SAFETY: An entry may be used and removed by any thread.
unsafe impl Send for Entry {}
// SAFETY: Nothing changes through a shared entry but what debugfs protects itself.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the invariant, and it is not used after this. debugfs waits for running calls on
        // its files.
        unsafe { raw::freelist_debugfs_remove(self.dentry) };
    }
}

/// A directory, which exists as long as a clone of this or an entry in it.
#[derive(Clone)]
pub(crate) struct Dir(Arc<Entry>);

impl Dir {
    /// Creates a directory in `parent`, or in the root of debugfs. Fails with `ENOMEM` when memory is
    /// short. May sleep.
    pub(crate) fn new(name: &CStr, parent: Option<&Dir>) -> Result<Self> {
        let above = parent.map_or(core::ptr::null_mut(), |parent| parent.0.dentry);
        // SAFETY: The parent exists, or is null, which is the root; the name is copied.
        let dentry = unsafe { raw::freelist_debugfs_dir(name.as_char_ptr(), above) };
        // INVARIANT: It was just created, and holds its parent. It is removed if this fails.
        let entry = Entry {
            dentry,
            _parent: parent.cloned(),
        };
        Ok(Self(Arc::new(entry, GFP_KERNEL_ACCOUNT)?))
    }

    /// Creates a file that reads and writes `number`. It is removed with the directory.
    #[cfg(CONFIG_FAULT_INJECTION)]
    pub(crate) fn number(&self, name: &CStr, number: &'static Atomic<u32>) {
        // SAFETY: The directory exists, or debugfs ignores it; the name is copied; the number is
        // static, and debugfs reads and writes it as one word, as all other code does.
        unsafe {
            raw::freelist_debugfs_number(name.as_char_ptr(), self.0.dentry, number.as_ptr());
        }
    }
}

/// A file that is read.
pub(crate) type ReadFile<V> = File<Read<V>>;
/// A file that is written.
pub(crate) type WriteFile<C> = File<Write<C>>;

/// The contents of a file.
pub(crate) trait Contents: 'static {
    /// The object that the file shows or changes.
    type Of: Send + Sync;
    /// The permissions of the file.
    const MODE: u16;
    /// The functions of the file.
    const OPERATIONS: &'static bindings::file_operations;
}

/// The text of a file that is read.
pub(crate) trait View: 'static {
    /// The object that the text describes.
    type Of: Send + Sync;

    /// Returns the expected length of the text in bytes, which matters above a page.
    fn size_hint(_of: &Self::Of) -> usize {
        PAGE_SIZE
    }

    /// Writes the text to `out`. Called again from the beginning if the buffer was too small.
    fn show(of: &Self::Of, out: &SeqFile) -> Result;
}

/// The effect of a number that is written to a file.
pub(crate) trait Command: 'static {
    /// The object that the command changes.
    type Of: Send + Sync;

    /// Runs the command with the number.
    fn run(of: &Self::Of, number: u64) -> Result;
}

/// The [`Contents`] of a file with a [`View`].
pub(crate) struct Read<V>(PhantomData<V>);

/// The [`Contents`] of a file with a [`Command`].
pub(crate) struct Write<C>(PhantomData<C>);

impl<V: View> Contents for Read<V> {
    type Of = V::Of;
    const MODE: u16 = 0o400;
    const OPERATIONS: &'static bindings::file_operations = &bindings::file_operations {
        owner: operations::this_module(),
        open: Some(open_view::<V>),
        read: Some(bindings::seq_read),
        llseek: Some(bindings::seq_lseek),
        release: Some(bindings::single_release),
        ..pin_init::zeroed()
    };
}

impl<C: Command> Contents for Write<C> {
    type Of = C::Of;
    const MODE: u16 = 0o200;
    const OPERATIONS: &'static bindings::file_operations = &bindings::file_operations {
        owner: operations::this_module(),
        open: Some(bindings::simple_open),
        write: Some(write_command::<C>),
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };
}

/// A file about `of`. Fields are dropped in this order: no call on the file runs any more when `of` is
/// dropped.
pub(crate) struct File<C: Contents> {
    _entry: Entry,
    _of: Arc<C::Of>,
}

impl<C: Contents> File<C> {
    /// Creates a file in `parent`. May sleep.
    pub(crate) fn new(name: &CStr, parent: &Dir, of: Arc<C::Of>) -> Self {
        let data: *const C::Of = &*of;
        // SAFETY: The parent exists; the name is copied; the table is static. The functions in the
        // table take `data` for a `C::Of`, which `of` keeps until the file is removed.
        let dentry = unsafe {
            raw::freelist_debugfs_file(
                name.as_char_ptr(),
                C::MODE,
                parent.0.dentry,
                data.cast_mut().cast(),
                core::ptr::from_ref(C::OPERATIONS).cast(),
            )
        };
        // INVARIANT: It was just created, and holds its parent.
        let entry = Entry {
            dentry,
            _parent: Some(parent.clone()),
        };
        Self {
            _entry: entry,
            _of: of,
        }
    }
}

/// Opens a file with a [`View`].
///
/// # Safety
///
/// Called by debugfs for a [`File`] of `Read<V>`.
unsafe extern "C" fn open_view<V: View>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: debugfs keeps the inode, and the data of `File::new` in it, until this returns.
    let data = unsafe { (*inode).i_private };
    // SAFETY: As above.
    let size = V::size_hint(unsafe { &*data.cast::<V::Of>() });
    // SAFETY: `show_view` takes the data for a `V::Of`.
    unsafe { bindings::single_open_size(file, Some(show_view::<V>), data, size) }
}

/// Writes the text of a [`View`].
///
/// # Safety
///
/// Called for a file that [`open_view`] has opened; debugfs keeps its data for as long.
unsafe extern "C" fn show_view<V: View>(out: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: By the caller's promise: `open_view` put it there.
    let of = unsafe { &*(*out).private.cast::<V::Of>() };
    // SAFETY: The caller owns it until this returns.
    let out = unsafe { SeqFile::from_raw(out) };
    from_result(|| V::show(of, out).map(|()| 0))
}

/// Runs a [`Command`] with the number that the caller writes.
///
/// # Safety
///
/// Called by debugfs for a [`File`] of `Write<C>`, which keeps its data for as long.
unsafe extern "C" fn write_command<C: Command>(
    file: *mut bindings::file,
    from: *const c_char,
    len: usize,
    _position: *mut bindings::loff_t,
) -> isize {
    // SAFETY: `File::new` put it into the inode, and `simple_open` into the file.
    let of = unsafe { &*(*file).private_data.cast::<C::Of>() };
    from_result(|| {
        C::run(of, number(from, len)?)?;
        Ok(len as isize)
    })
}

/// Reads a number from the caller's text: decimal, or hexadecimal or octal with C's prefixes. Fails with
/// `EINVAL` or `ERANGE` where it is none, and with `EFAULT`. May sleep.
fn number(from: *const c_char, len: usize) -> Result<u64> {
    let mut number = 0;
    // SAFETY: `number` is valid for writes; the address of the text is checked as one of user space.
    to_result(unsafe { raw::freelist_number_from_user(from.cast(), len, &mut number) })?;
    Ok(number)
}
