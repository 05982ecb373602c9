// SPDX-License-Identifier: GPL-2.0-only

//! Errors that the kernel crate names from Linux 7.3 on only.

use kernel::{
    bindings,
    prelude::*, //
};

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $errno:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name() -> Error {
            Error::from_errno(-(bindings::$errno as i32))
        }
    )*};
}

errors! {
    /// Returns `EDQUOT`: a limit would be exceeded.
    edquot = EDQUOT;
    /// Returns `EUCLEAN`: a header was overwritten.
    euclean = EUCLEAN;
}
