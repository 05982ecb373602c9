// SPDX-License-Identifier: GPL-2.0

//! `freelistctl top` on a terminal of its own: the screen, and the keys.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{openpty, Winsize};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::ctl::{ctl, id};
use crate::harness::suite;
use crate::kit::{alloc, arena, MIB};

suite!("freelist_ctl_live":
    top_shows_an_arena_as_it_grows,
    keys_change_what_top_shows,
    top_leaves_the_terminal_as_it_was,
);

/// A machine that emulates its CPU may take long to draw.
const PATIENCE: Duration = Duration::from_secs(90);

/// `freelistctl top` and the terminal that it runs on.
struct Screen {
    child: Child,
    keys: File,
    bytes: Receiver<Vec<u8>>,
    terminal: vt100::Parser,
}

impl Screen {
    fn open(arguments: &[&str]) -> Self {
        let size = Winsize {
            ws_row: 30,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("/dev/ptmx is there");
        let slave = |_| pty.slave.try_clone().unwrap();
        let mut command = ctl(arguments);
        command.stdin(slave(0)).stdout(slave(1)).stderr(slave(2));
        let child = command
            .spawn()
            .expect("freelistctl lies beside this program");
        let keys = File::from(pty.master);
        let mut master = keys.try_clone().unwrap();
        let (sender, bytes) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error is the terminal's end.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keys,
            bytes,
            terminal: vt100::Parser::new(30, 120, 0),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen is as `wanted`, a description for the message, and returns its text.
    #[track_caller]
    fn wait_for(&mut self, message: &str, wanted: impl Fn(&vt100::Screen) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.terminal.screen().contents();
            if wanted(self.terminal.screen()) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => self.terminal.process(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("{message}:\n{text}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended; {message}:\n{text}"),
            }
        }
    }

    /// Waits until the program ends, and reads its output until then.
    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.child.try_wait().unwrap();
            while let Ok(bytes) = self.bytes.recv_timeout(Duration::from_millis(50)) {
                self.terminal.process(&bytes);
            }
            if let Some(status) = status {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
        }
    }
}

/// Returns the line of the screen that begins with the arena's number.
fn row(screen: &vt100::Screen, id: u64) -> Option<String> {
    let text = screen.contents();
    let id = id.to_string();
    let is_row = |line: &&str| line.split_whitespace().next() == Some(&id);
    text.lines().find(is_row).map(str::to_owned)
}

fn top_shows_an_arena_as_it_grows() {
    let arena = arena();
    let id = id();
    alloc(&arena, 3 * MIB);
    let mut screen = Screen::open(&["top", "--delay", "0.2"]);
    let shows = |text: &'static str| {
        move |screen: &vt100::Screen| row(screen, id).is_some_and(|row| row.contains(text))
    };
    screen.wait_for("an arena has a row", shows(" 3.00 "));
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let line = row(screen.terminal.screen(), id).unwrap();
    assert!(line.contains(name.trim_end()), "{line}");
    assert!(line.contains(&std::process::id().to_string()), "{line}");
    alloc(&arena, 4 * MIB);
    screen.wait_for("and follows it", shows(" 7.00 "));
    drop(arena);
    screen.wait_for("it goes with its arena", |screen| row(screen, id).is_none());
    screen.press("q");
    assert!(screen.end().success());
}

fn keys_change_what_top_shows() {
    let (first, second) = (arena(), arena());
    let later = id();
    alloc(&first, 2 * MIB);
    alloc(&second, MIB);
    let mut screen = Screen::open(&["top", "--delay", "0.2"]);
    let order = |screen: &vt100::Screen| {
        let text = screen.contents();
        let at = |id: u64| {
            let id = id.to_string();
            let mut lines = text.lines();
            lines.position(|line| line.split_whitespace().next() == Some(&id))
        };
        Some(at(later - 1)?.cmp(&at(later)?))
    };
    use std::cmp::Ordering::{Greater, Less};
    screen.wait_for("most held first", |screen| order(screen) == Some(Less));
    screen.press("r");
    screen.wait_for("the other way round", |screen| {
        order(screen) == Some(Greater)
    });
    screen.press("i");
    screen.wait_for("by number", |screen| order(screen) == Some(Less));
    screen.press("\t");
    let text = screen.wait_for("size classes", |screen| {
        screen.contents().contains("s:size")
    });
    assert!(text.contains("h:heldv"), "{text}");
    screen.press("?");
    screen.wait_for("the keys", |screen| {
        screen.contents().contains("reverses the order")
    });
    screen.press("?a");
    screen.wait_for("arenas", |screen| screen.contents().contains("p:pid"));
    screen.press("\x03");
    assert!(screen.end().success());
}

fn top_leaves_the_terminal_as_it_was() {
    let _arena = arena();
    for how in ["q", "signal"] {
        let mut screen = Screen::open(&["top"]);
        let before = nix::sys::termios::tcgetattr(&screen.keys).unwrap();
        screen.wait_for("a frame", |screen| screen.contents().contains("p:pid"));
        assert!(screen.terminal.screen().alternate_screen());
        assert!(screen.terminal.screen().hide_cursor());
        match how {
            "q" => screen.press("q"),
            _ => kill(Pid::from_raw(screen.child.id() as i32), Signal::SIGTERM).unwrap(),
        }
        assert!(screen.end().success(), "{how}");
        assert!(!screen.terminal.screen().alternate_screen(), "{how}");
        assert!(!screen.terminal.screen().hide_cursor(), "{how}");
        // The terminal may have been raw when it was first read.
        let flags = nix::sys::termios::LocalFlags::ICANON | nix::sys::termios::LocalFlags::ECHO;
        let after = nix::sys::termios::tcgetattr(&screen.keys).unwrap();
        assert!(after.local_flags.contains(flags), "{how}: {before:?}");
    }
}
