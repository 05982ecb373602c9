// SPDX-License-Identifier: MIT OR Apache-2.0

//! The environment variables: `FREELIST_THRESHOLD`, `FREELIST_LIMIT`, `FREELIST_STRICT`,
//! `FREELIST_FORK`, `FREELIST_QUIET` and `FREELIST_REPORT`.
//!
//! An invalid value is reported on standard error, and the default applies.

use core::ffi::{c_char, CStr};
use core::mem::MaybeUninit;

use super::message::say;
use super::once::{self, Once};
use super::os;
use crate::size;
use crate::sync::{atomic::AtomicU32, UnsafeCell};

/// The default and the least of `FREELIST_THRESHOLD`, in bytes: smaller blocks would have to share a
/// unit of the table.
pub const MIN_THRESHOLD: usize = super::table::UNIT;

/// The parent's blocks in a forked child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForkMode {
    /// The child has a copy as of the fork.
    Copy,
    /// The child reads the parent's blocks.
    Share,
}

/// The settings of a process, from its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// The size in bytes from which blocks are the arena's.
    pub(super) threshold: usize,
    /// The most bytes that the arena may hold; 0 for the module's own limit.
    pub(super) limit: u64,
    /// `true` if a large block that the arena cannot serve fails, instead of going to the next
    /// allocator.
    pub(super) strict: bool,
    /// The parent's blocks in a forked child.
    pub(super) fork: ForkMode,
    /// `true` if no message reports large blocks that the next allocator serves.
    pub(super) quiet: bool,
    /// The file for the counters, made by `freelistctl run`.
    pub(super) report: Option<Path>,
    /// `true` if this process has more rights than its caller: its environment is ignored, and the
    /// device not opened.
    pub(super) privileged: bool,
}

/// A short path: a copy, as the program may change the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path([u8; 64]);

impl Path {
    /// Copies a path; `None` if it is too long.
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        // The last byte stays 0.
        let (content, _) = bytes.split_at_mut(63);
        content
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// The prefix of the variables' names.
const PREFIX: &[u8] = b"FREELIST_";

const DEFAULT: Settings = Settings {
    threshold: MIN_THRESHOLD,
    limit: 0,
    strict: false,
    fork: ForkMode::Copy,
    quiet: false,
    report: None,
    privileged: false,
};

/// A variable with an invalid value, and a description of the valid ones.
type Wrong = (&'static str, &'static str);

impl Settings {
    /// Reads the variables by `get`, and passes each with an invalid value to `complain`.
    fn from(
        get: impl Fn(&'static CStr) -> Option<&'static CStr>,
        mut complain: impl FnMut(Wrong, &CStr),
    ) -> Self {
        let mut settings = DEFAULT;
        settings.quiet = get(c"FREELIST_QUIET").is_some_and(|value| value == c"1");
        let mut read = |name: &'static CStr, valid, set: &mut dyn FnMut(&str) -> bool| {
            let Some(value) = get(name).filter(|value| !value.is_empty()) else {
                return;
            };
            if !value.to_str().is_ok_and(set) {
                complain((name.to_str().unwrap_or_default(), valid), value);
            }
        };
        read(
            c"FREELIST_THRESHOLD",
            "bytes from 64K up, with K, M or G",
            &mut |text| {
                let bytes = size::parse(text).ok().and_then(|size| size.try_into().ok());
                let bytes = bytes.filter(|bytes| *bytes >= MIN_THRESHOLD);
                settings.threshold = bytes.unwrap_or(settings.threshold);
                bytes.is_some()
            },
        );
        read(
            c"FREELIST_LIMIT",
            "bytes, with K, M or G, and at least 1M",
            &mut |text| {
                let bytes = size::parse(text).ok().filter(|bytes| *bytes >= 1 << 20);
                settings.limit = bytes.unwrap_or(settings.limit);
                bytes.is_some()
            },
        );
        read(c"FREELIST_STRICT", "0 or 1", &mut |text| {
            settings.strict = text == "1";
            matches!(text, "0" | "1")
        });
        read(c"FREELIST_FORK", "copy or share", &mut |text| {
            if text == "share" {
                settings.fork = ForkMode::Share;
            }
            matches!(text, "copy" | "share")
        });
        read(
            c"FREELIST_REPORT",
            "a path of at most 63 bytes",
            &mut |text| {
                settings.report = Path::new(text);
                settings.report.is_some()
            },
        );
        settings
    }

    /// Returns the settings of this process, read once; `None` while the program's libraries are being
    /// linked, when the C library has no environment yet.
    pub(super) fn get() -> Option<Self> {
        static SETTINGS: Once<Settings> = Once {
            state: AtomicU32::new(once::EMPTY),
            value: UnsafeCell::new(MaybeUninit::zeroed()),
        };
        if let Some(settings) = SETTINGS.get() {
            return Some(settings);
        }
        // SAFETY: The variable is the C library's own, of which only the value is read.
        if unsafe { environ }.is_null() {
            return None;
        }
        Some(SETTINGS.get_or_compute(Self::read))
    }

    /// Reads the settings of this process. If `first`, reports invalid values.
    fn read(first: bool) -> Self {
        if os::is_privileged() {
            return Settings {
                privileged: true,
                ..DEFAULT
            };
        }
        // Usually there is nothing to read, in a process that is about to do little.
        if variables().next().is_none() {
            return DEFAULT;
        }
        Self::from(variable, |(name, valid), value| {
            if first {
                let value = value.to_string_lossy_or_cut();
                say(format_args!(
                    "{name}={value}: not understood, the default holds; it takes {valid}"
                ));
            }
        })
    }
}

extern "C" {
    static environ: *const *const c_char;
}

/// Returns the variables of the environment that begin with [`PREFIX`].
///
/// A program that changes its environment at this time in another thread breaks its own use of it
/// too; this usually runs before `main()`.
fn variables() -> impl Iterator<Item = &'static CStr> {
    // SAFETY: As in `Settings::get()`.
    let mut next = unsafe { environ };
    let all = core::iter::from_fn(move || {
        // SAFETY: It is null, or in an array of pointers that ends with a null one, which is not
        // passed.
        let variable = unsafe { *next.as_ref()? };
        // SAFETY: As above: this one is not the last.
        next = unsafe { next.add(usize::from(!variable.is_null())) };
        (!variable.is_null()).then_some(variable)
    });
    all.filter(|variable| {
        let mut prefix = PREFIX.iter().enumerate();
        // SAFETY: It is a C string, of which nothing is read after the first byte that differs.
        prefix.all(|(at, byte)| unsafe { *variable.add(at).cast::<u8>() } == *byte)
    })
    // SAFETY: As above. Its bytes are read before the settings are complete, and not kept.
    .map(|variable| unsafe { CStr::from_ptr(variable) })
}

/// Returns the value of one of these variables.
fn variable(name: &'static CStr) -> Option<&'static CStr> {
    variables().find_map(|variable| {
        let value = variable
            .to_bytes_with_nul()
            .strip_prefix(name.to_bytes())?
            .strip_prefix(b"=")?;
        CStr::from_bytes_with_nul(value).ok()
    })
}

/// A C string as text, for messages, without allocating.
trait Shown {
    fn to_string_lossy_or_cut(&self) -> &str;
}

impl Shown for CStr {
    /// Returns its text up to the first byte that is not UTF-8.
    fn to_string_lossy_or_cut(&self) -> &str {
        let bytes = self.to_bytes();
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                core::str::from_utf8(bytes.get(..error.valid_up_to()).unwrap_or_default())
                    .unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(&'static CStr, &'static CStr)];

    /// Returns settings from these variables, and the names of those with invalid values.
    fn read(pairs: Pairs) -> (Settings, Vec<&'static str>) {
        let mut wrong = Vec::new();
        let get = |name: &CStr| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| *value)
        };
        let settings = Settings::from(get, |(name, _), _| wrong.push(name));
        (settings, wrong)
    }

    #[test]
    fn an_empty_environment_is_the_default() {
        assert_eq!(read(&[]), (DEFAULT, vec![]));
        assert_eq!(read(&[(c"FREELIST_LIMIT", c"")]), (DEFAULT, vec![]));
    }

    #[test]
    fn each_variable_is_read() {
        let (settings, wrong) = read(&[
            (c"FREELIST_THRESHOLD", c"1M"),
            (c"FREELIST_LIMIT", c"2G"),
            (c"FREELIST_STRICT", c"1"),
            (c"FREELIST_FORK", c"share"),
            (c"FREELIST_QUIET", c"1"),
            (c"FREELIST_REPORT", c"/dev/null"),
        ]);
        let expected = Settings {
            threshold: 1 << 20,
            limit: 2 << 30,
            strict: true,
            fork: ForkMode::Share,
            quiet: true,
            report: Path::new("/dev/null"),
            privileged: false,
        };
        assert_eq!((settings, wrong), (expected, vec![]));
    }

    #[test]
    fn an_invalid_value_is_reported_and_the_default_applies() {
        for value in [c"x", c"-1", c"63K", c"1.5M", c"99999999999G", c"\xff"] {
            let pairs: Pairs = Box::leak(Box::new([(c"FREELIST_THRESHOLD", value)]));
            assert_eq!(
                read(pairs),
                (DEFAULT, vec!["FREELIST_THRESHOLD"]),
                "{value:?}"
            );
        }
        for (name, value) in [
            (c"FREELIST_LIMIT", c"4096"),
            (c"FREELIST_STRICT", c"yes"),
            (c"FREELIST_FORK", c"maybe"),
            (
                c"FREELIST_REPORT",
                c"/a/path/that/is/longer/than/any/that/freelistctl/makes/for/its/report",
            ),
        ] {
            let pairs: Pairs = Box::leak(Box::new([(name, value)]));
            assert_eq!(read(pairs), (DEFAULT, vec![name.to_str().unwrap()]));
        }
    }
}
