// SPDX-License-Identifier: GPL-2.0

//! `std::thread`, with threads that note the points of the module that they reach, if the run asks for that.

pub use std::thread::{sleep, yield_now, ScopedJoinHandle};

/// A scope of threads, as [`std::thread::Scope`].
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env: 'scope>(&'scope std::thread::Scope<'scope, 'env>);

impl<'scope> Scope<'scope, '_> {
    /// Spawns a thread, as [`std::thread::Scope::spawn`].
    pub fn spawn<T: Send + 'scope>(
        self,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        self.0.spawn(|| {
            freelist_probe::kcov::note();
            work()
        })
    }
}

/// Runs `work` with a scope, as [`std::thread::scope`].
pub fn scope<'env, T>(work: impl for<'scope> FnOnce(Scope<'scope, 'env>) -> T) -> T {
    std::thread::scope(|scope| work(Scope(scope)))
}
