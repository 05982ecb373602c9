// SPDX-License-Identifier: GPL-2.0

//! What a kernel for tests offers to programs: the points that they reach ([`kcov`]), and
//! allocations that fail ([`FailNth`]).

mod fail_nth;
pub mod kcov;
mod module;

pub use fail_nth::FailNth;
pub use module::{Module, Place};
