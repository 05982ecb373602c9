// SPDX-License-Identifier: GPL-2.0

//! The test features of the debug kernel: the points that tasks reach ([`kcov`]), and allocations that fail
//! ([`FailNth`]).

mod fail_nth;
pub mod kcov;
mod module;

pub use fail_nth::FailNth;
pub use module::{Module, Place};
