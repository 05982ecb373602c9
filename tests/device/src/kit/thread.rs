// SPDX-License-Identifier: GPL-2.0

//! `std::thread`, with threads that note what of the module they reach, where the run asks for that.

pub use std::thread::{sleep, yield_now, ScopedJoinHandle};

/// As [`std::thread::Scope`].
#[derive(Clone, Copy)]
pub struct Scope<'scope, 'env: 'scope>(&'scope std::thread::Scope<'scope, 'env>);

impl<'scope> Scope<'scope, '_> {
    /// As [`std::thread::Scope::spawn`].
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

/// As [`std::thread::scope`].
pub fn scope<'env, T>(work: impl for<'scope> FnOnce(Scope<'scope, 'env>) -> T) -> T {
    std::thread::scope(|scope| work(Scope(scope)))
}
