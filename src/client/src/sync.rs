// SPDX-License-Identifier: GPL-2.0

//! What threads share state through. `tests/heap` has the heap's files use loom's
//! instead, to look at every order of threads.

pub(crate) use std::sync::atomic;
pub(crate) use std::sync::{Mutex, MutexGuard};
