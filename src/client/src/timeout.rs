// SPDX-License-Identifier: MIT OR Apache-2.0

//! The longest wait of a request.

use std::time::Duration;

/// The longest wait of a request. A call that ends early (`EINTR`) leaves the rest in it, so that the same
/// request can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(i64);

impl Timeout {
    /// Waits until the request is served.
    pub const FOREVER: Self = Self(-1);

    /// Returns the rest; `None` is for ever.
    pub fn left(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }

    /// Converts from the contract's nanoseconds.
    pub(crate) fn from_ns(ns: i64) -> Self {
        Self(ns)
    }

    /// Converts to the contract's nanoseconds.
    pub(crate) fn ns(self) -> i64 {
        self.0
    }
}

/// Converts from a duration; one above 292 years becomes 292 years.
impl From<Duration> for Timeout {
    fn from(time: Duration) -> Self {
        Self(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_again() {
        for time in [
            Duration::ZERO,
            Duration::from_micros(1500),
            Duration::from_secs(1 << 33),
        ] {
            assert_eq!(Timeout::from(time).left(), Some(time));
        }
        assert_eq!(Timeout::FOREVER.left(), None);
        assert!(Timeout::from(Duration::MAX).left().is_some());
    }
}
