// SPDX-License-Identifier: GPL-2.0

//! The programs that are run, unchanged from Debian.

/// A program and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// The name in records, tables and on the command line.
    pub name: &'static str,
    /// A description.
    pub what: &'static str,
    /// The command. It runs in the directory of the workloads, with one thread.
    pub command: &'static [&'static str],
    /// The command that reads the same files in less time, run once before all measurements.
    pub warm_up: &'static [&'static str],
    /// The mark after which the process idles, for those that have marks (see `mark.py`).
    pub idles_at: Option<&'static str>,
    /// `true` if the plots show it.
    pub is_plotted: bool,
}

/// All workloads. Their results do not depend on the allocator: seeds are fixed.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "gpt",
        what: "PyTorch: a GPT, 4 steps of 128, 96, 160, 128 tokens",
        command: &["python3", "gpt.py", "4"],
        warm_up: &["python3", "gpt.py", "1"],
        idles_at: Some("step3"),
        is_plotted: true,
    },
    Workload {
        name: "unet",
        what: "PyTorch: a U-Net, 4 steps of 160, 128, 176, 144 pixels",
        command: &["python3", "unet.py", "4"],
        warm_up: &["python3", "unet.py", "1"],
        idles_at: Some("step3"),
        is_plotted: true,
    },
    Workload {
        name: "ffmpeg",
        what: "ffmpeg: 1 s of 960x540 encoded",
        command: &FFMPEG,
        warm_up: &FFMPEG,
        idles_at: None,
        is_plotted: true,
    },
    Workload {
        name: "magick",
        what: "ImageMagick: 800x600 blurred, enlarged, rotated",
        command: &magick("800x600"),
        warm_up: &magick("80x60"),
        idles_at: None,
        is_plotted: true,
    },
    Workload {
        name: "shell",
        what: "a shell script that runs 1,000 commands",
        command: &["sh", "-c", SHELL],
        warm_up: &["sh", "-c", "true"],
        idles_at: None,
        is_plotted: false,
    },
    Workload {
        name: "fork0",
        what: "a fork without large blocks",
        command: &["python3", "fork.py", "0"],
        warm_up: &["python3", "fork.py", "0"],
        idles_at: None,
        is_plotted: false,
    },
    Workload {
        name: "fork256",
        what: "a fork with 256 MiB of live large blocks",
        command: &["python3", "fork.py", "256"],
        warm_up: &["python3", "fork.py", "0"],
        idles_at: None,
        is_plotted: false,
    },
    Workload {
        name: "workers",
        what: "4 forked workers that read 64 of the 256 MiB of live large blocks of their parent",
        command: &["python3", "workers.py", "256", "64", "4"],
        warm_up: &["python3", "workers.py", "0", "0", "1"],
        idles_at: None,
        is_plotted: false,
    },
];

/// Runs `true` as a program, not the shell's own.
const SHELL: &str = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i + 1)); done; echo $i";

/// The stream's checksum is the result.
const FFMPEG: [&str; 17] = [
    "ffmpeg",
    "-nostdin",
    "-v",
    "error",
    "-f",
    "lavfi",
    "-i",
    "testsrc=duration=1:size=960x540:rate=25",
    "-threads",
    "1",
    "-filter_threads",
    "1",
    "-c:v",
    "mpeg4",
    "-f",
    "md5",
    "-",
];

/// Returns the pipeline on an image of that size. The checksum of the pixels is the result.
const fn magick(size: &'static str) -> [&'static str; 15] {
    [
        "magick", "-size", size, "-seed", "1", "plasma:", "-blur", "0x3", "-resize", "125%",
        "-rotate", "7", "-format", "%#\\n", "info:",
    ]
}

/// Returns the workload with that name.
pub fn named(name: &str) -> Option<Workload> {
    WORKLOADS
        .iter()
        .find(|workload| workload.name == name)
        .copied()
}
