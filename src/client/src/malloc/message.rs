// SPDX-License-Identifier: GPL-2.0

//! One line on standard error, written without allocating.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd;

use nix::unistd::write;

/// Bytes of the longest line; what is longer is cut.
const MAX_LINE: usize = 320;

/// A line that is being put together on the stack.
struct Line {
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is the newline's.
        let room = MAX_LINE - 1 - self.len;
        let bytes = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

/// Writes `freelist: `, the message and a newline to standard error, in one call.
///
/// A standard error that is closed or full changes nothing: there is nowhere else to complain.
pub(super) fn say(message: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; MAX_LINE],
        len: 0,
    };
    let _ = line.write_fmt(format_args!("freelist: {message}"));
    line.bytes[line.len] = b'\n';
    let _ = write(io::stderr().as_fd(), &line.bytes[..=line.len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_still_ends() {
        let mut line = Line {
            bytes: [0; MAX_LINE],
            len: 0,
        };
        for _ in 0..100 {
            line.write_str("0123456789").unwrap();
        }
        assert_eq!(line.len, MAX_LINE - 1);
        assert!(line.bytes.starts_with(b"01234567890"));
    }
}
