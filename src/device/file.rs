// SPDX-License-Identifier: GPL-2.0-only

//! The open file: an arena, its debugfs files and its member of the shrinker.

use crate::{
    arena::{
        registry::Registry,
        Arena, //
    },
    debug::files::ArenaFiles,
    ffi::{
        debugfs::Dir,
        race_point::RacePoint, //
    },
    mm::{
        memcg::Memcg,
        shrinker::Member, //
    }, //
};
use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::Arc,
    types::ForeignOwnable, //
};

/// The private data of an open file: an arena that is in the registry until the file is closed.
pub(crate) struct OpenFile {
    files: ArenaFiles,
    arena: Arc<Arena>,
    member: Member<Arena>,
    registry: Arc<Registry>,
}

impl OpenFile {
    /// Opens an arena that is charged to `memcg`. `ENOMEM` when memory is short. May sleep.
    fn new(memcg: Memcg, registry: &Arc<Registry>, dir: &Dir) -> Result<Self> {
        let arena = registry.open(memcg)?;
        RacePoint::Open.reach();
        let around = || -> Result<_> {
            let files = ArenaFiles::new(dir, &arena)?;
            let memcg = arena.memcg().as_ptr();
            // SAFETY: The shrinker outlives the device, and the device its open files. The cgroup is the
            // arena's, which holds a reference to it.
            Ok((files, unsafe { Member::new(arena.clone(), memcg) }?))
        };
        // An arena in the registry has to be closed there: nothing after this line may fail.
        let around = arena.memcg().charge(around);
        let (files, member) = around.inspect_err(|_| registry.close(&arena))?;
        Ok(Self {
            files,
            arena,
            member,
            registry: registry.clone(),
        })
    }

    /// Opens an arena and makes it the private data of a file. `ENOMEM` when memory is short. May sleep.
    ///
    /// # Safety
    ///
    /// `file` is being opened, and no other thread has it.
    pub(crate) unsafe fn open(
        file: *mut bindings::file,
        registry: &Arc<Registry>,
        dir: &Dir,
    ) -> Result {
        // One cgroup is charged for everything, even if the thread is in another one than its process.
        let memcg = Memcg::of_caller();
        let place = memcg.charge(|| KBox::<Self>::new_uninit(GFP_KERNEL_ACCOUNT))?;
        let this = place.write(Self::new(memcg, registry, dir)?);
        // SAFETY: It is empty, and `Arena::new` made it for an arena. It is empty again when
        // `Registry::close` returns, and the arena is dropped after that.
        unsafe { this.arena.address_space().set_owner(&raw const *this.arena) };
        // SAFETY: By the caller's promise. The arena lives until `close`, which is the end of the file.
        unsafe { this.arena.address_space().attach(file) };
        // SAFETY: By the caller's promise.
        unsafe { (*file).private_data = this.into_foreign().cast() };
        Ok(())
    }

    /// Returns the arena of `file`.
    ///
    /// # Safety
    ///
    /// [`OpenFile::open`] has opened the file.
    pub(crate) unsafe fn of(file: &File) -> &Arena {
        // SAFETY: By the caller's promise the private data is ours; `close` comes after the last reference
        // to the file is gone.
        unsafe { &KBox::<Self>::borrow((*file.as_ptr()).private_data.cast()).arena }
    }

    /// Closes the arena of a file.
    ///
    /// # Safety
    ///
    /// [`OpenFile::open`] has opened the file, and the last reference to it is gone.
    pub(crate) unsafe fn close(file: *mut bindings::file) {
        // SAFETY: By the caller's promise the private data is ours, and no other thread has the file.
        let this = unsafe { KBox::<Self>::from_foreign((*file).private_data.cast()) };
        let Self {
            files,
            arena,
            member,
            registry,
        } = KBox::into_inner(this);
        // Readers of debugfs and the shrinker are done with the arena before it ends.
        drop(files);
        drop(member);
        registry.close(&arena);
    }
}
