// SPDX-License-Identifier: GPL-2.0-only

//! Files in debugfs.
//!
//! Those of the kernel crate (7.3) have no owner: one that is open when its module is unloaded ends
//! in freed memory when it is closed (tried). Ours keep the module loaded.

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

/// A directory or a file, until it is dropped. One that debugfs could not make is none: nobody
/// depends on it.
///
/// # Invariants
///
/// `dentry` is one that debugfs has made for us and that is there until it is removed, or a null
/// or error pointer, which debugfs takes for none. Its parent is there as long.
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
        // SAFETY: By the invariant, and nobody has it any more. Whoever is in a file of it has
        // left when this returns.
        unsafe { raw::freelist_debugfs_remove(self.dentry) };
    }
}

/// A directory, there as long as a copy of this or something in it is.
#[derive(Clone)]
pub(crate) struct Dir(Arc<Entry>);

impl Dir {
    /// Makes a directory in `parent`, or in the root of debugfs. `ENOMEM` when memory is short.
    pub(crate) fn new(name: &CStr, parent: Option<&Dir>) -> Result<Self> {
        let above = parent.map_or(core::ptr::null_mut(), |parent| parent.0.dentry);
        // SAFETY: The parent is there, or null, which is the root; the name is copied.
        let dentry = unsafe { raw::freelist_debugfs_dir(name.as_char_ptr(), above) };
        // INVARIANT: It was just made, and holds its parent. It is removed if this fails.
        let entry = Entry {
            dentry,
            _parent: parent.cloned(),
        };
        Ok(Self(Arc::new(entry, GFP_KERNEL_ACCOUNT)?))
    }

    /// Makes a file in it for a number that is read and written as it is, and goes with it.
    #[cfg(CONFIG_FAULT_INJECTION)]
    pub(crate) fn number(&self, name: &CStr, number: &'static Atomic<u32>) {
        // SAFETY: The directory is there, or none; the name is copied; the number is always there,
        // and debugfs reads and writes it in one piece, as everybody does.
        unsafe {
            raw::freelist_debugfs_number(name.as_char_ptr(), self.0.dentry, number.as_ptr());
        }
    }
}

/// A file that is read.
pub(crate) type ReadFile<V> = File<Read<V>>;
/// A file that is written.
pub(crate) type WriteFile<C> = File<Write<C>>;

/// What is behind a file.
pub(crate) trait Contents: 'static {
    /// What it shows or changes.
    type Of: Send + Sync;
    /// Its permissions.
    const MODE: u16;
    /// What is called for it.
    const OPERATIONS: &'static bindings::file_operations;
}

/// Something to be read.
pub(crate) trait View: 'static {
    /// What it is about.
    type Of: Send + Sync;

    /// Bytes that it takes, as far as that is known: more than a page is worth knowing.
    fn room(_of: &Self::Of) -> usize {
        PAGE_SIZE
    }

    /// Shows it; called again, from the beginning, where there was too little room.
    fn show(of: &Self::Of, out: &SeqFile) -> Result;
}

/// Something to be done when a number is written.
pub(crate) trait Command: 'static {
    /// What it is done to.
    type Of: Send + Sync;

    /// Does it.
    fn run(of: &Self::Of, number: u64) -> Result;
}

/// A [`View`], as a file has it.
pub(crate) struct Read<V>(PhantomData<V>);

/// A [`Command`], as a file has it.
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

/// A file about `of`. Dropped in this order: nobody is in the file any more when `of` goes.
pub(crate) struct File<C: Contents> {
    _entry: Entry,
    _of: Arc<C::Of>,
}

impl<C: Contents> File<C> {
    /// Makes a file in `parent`.
    pub(crate) fn new(name: &CStr, parent: &Dir, of: Arc<C::Of>) -> Self {
        let data: *const C::Of = &*of;
        // SAFETY: The parent is there; the name is copied; the table lives as long as the module.
        // `data` is what the functions in the table take it for, and stays until the file is
        // removed, as `of` does.
        let dentry = unsafe {
            raw::freelist_debugfs_file(
                name.as_char_ptr(),
                C::MODE,
                parent.0.dentry,
                data.cast_mut().cast(),
                core::ptr::from_ref(C::OPERATIONS).cast(),
            )
        };
        // INVARIANT: It was just made, and holds its parent.
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

/// Opens a file that shows something.
///
/// # Safety
///
/// Called by debugfs for a [`File`] of `Read<V>`.
unsafe extern "C" fn open_view<V: View>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: debugfs keeps the inode, and what `File::new` put there, for as long as this takes.
    let data = unsafe { (*inode).i_private };
    // SAFETY: As above.
    let room = V::room(unsafe { &*data.cast::<V::Of>() });
    // SAFETY: The data is as `show_view` takes it.
    unsafe { bindings::single_open_size(file, Some(show_view::<V>), data, room) }
}

/// Shows it.
///
/// # Safety
///
/// Called for a file that [`open_view`] has opened; debugfs keeps its data for as long.
unsafe extern "C" fn show_view<V: View>(out: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: By the caller's promise: `open_view` put it there.
    let of = unsafe { &*(*out).private.cast::<V::Of>() };
    // SAFETY: The caller's for as long as this takes.
    let out = unsafe { SeqFile::from_raw(out) };
    from_result(|| V::show(of, out).map(|()| 0))
}

/// Takes a number.
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
    // SAFETY: `simple_open` put it there from the inode, `File::new` into that.
    let of = unsafe { &*(*file).private_data.cast::<C::Of>() };
    from_result(|| {
        C::run(of, number(from, len)?)?;
        Ok(len as isize)
    })
}

/// A number in a caller's text: decimal, or as C writes others.
fn number(from: *const c_char, len: usize) -> Result<u64> {
    let mut number = 0;
    // SAFETY: `number` is ours to write; the text is the caller's, and is checked as such.
    to_result(unsafe { raw::freelist_number_from_user(from.cast(), len, &mut number) })?;
    Ok(number)
}
