// SPDX-License-Identifier: GPL-2.0-only

//! Errors that the kernel crate has names for from Linux 7.3 on only.

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
    /// `EDQUOT`: a limit forbids it.
    edquot = EDQUOT;
    /// `EUCLEAN`: a header was overwritten.
    euclean = EUCLEAN;
}
