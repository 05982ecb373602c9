// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text that is formatted without allocating, and lines of it on standard error.

use core::fmt::{self, Write as _};

use rustix::fd::BorrowedFd;
use rustix::io::write;

use crate::sys::Errno;

/// A text of at most `MAX` bytes, on the stack. A longer one is cut.
#[derive(Debug)]
pub struct Text<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Text<MAX> {
    /// Formats a text.
    pub fn new(content: fmt::Arguments<'_>) -> Self {
        let mut text = Self {
            bytes: [0; MAX],
            len: 0,
        };
        // Writing to it does not fail: see below.
        let _ = text.write_fmt(content);
        text
    }

    /// Ends the text with a newline, in place of its last byte if it is full.
    fn end(&mut self) {
        self.len = self.len.min(MAX - 1);
        let _ = self.write_str("\n");
    }

    /// Returns the bytes of the text.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const MAX: usize> fmt::Write for Text<MAX> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (byte, new) in rest.iter_mut().zip(text.bytes()) {
            *byte = new;
            self.len += 1;
        }
        Ok(())
    }
}

/// The bytes of the longest line.
const MAX_LINE: usize = 320;

/// Writes `freelist: `, the message and a newline to standard error, in one call. A line above 320
/// bytes is cut.
///
/// Ignores a standard error that is closed or full: there is no other place for the message.
pub fn say(message: fmt::Arguments<'_>) {
    let mut line = Text::<MAX_LINE>::new(format_args!("freelist: {message}"));
    line.end();
    // SAFETY: The number is used for this call alone, which the kernel refuses if it is closed.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = write(stderr, line.bytes());
}

/// An error of the kernel: in words for those of the device, as a number for all others.
pub(super) struct Answer(pub(super) Errno);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Errno::PERM => "Operation not permitted",
            Errno::NOENT => "No such file or directory",
            Errno::INTR => "Interrupted system call",
            Errno::INVAL => "Invalid argument",
            other => return write!(f, "error {}", other.raw_os_error()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        let mut text = Text::<25>::new(format_args!("{}-", 1234));
        for _ in 0..100 {
            text.write_str("0123456789").unwrap();
        }
        assert_eq!(text.bytes(), b"1234-01234567890123456789");
        text.end();
        assert_eq!(text.bytes(), b"1234-0123456789012345678\n");
    }

    #[test]
    fn an_answer_is_in_words() {
        assert_eq!(Answer(Errno::PERM).to_string(), "Operation not permitted");
        assert_eq!(Answer(Errno::NFILE).to_string(), "error 23");
    }
}
