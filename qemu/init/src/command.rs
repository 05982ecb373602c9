// SPDX-License-Identifier: GPL-2.0

//! Runs the command, and copies its output to the host.

use anyhow::{anyhow, Context, Result};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::unistd::pipe2;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use crate::verdict::Verdict;
use crate::{ports, TASK, WORK};

/// Runs the command of `scripts/vm` to its end. Returns its exit status; 126 or 127 where it cannot be
/// started.
pub fn run() -> Result<Verdict> {
    let words = nul_ended(&format!("{TASK}/command"))?;
    let Some((program, args)) = words.split_first() else {
        return shell();
    };
    let mut command = Command::new(program);
    command.args(args);
    match piped(prepare(&mut command)?) {
        Ok(verdict) => Ok(verdict),
        // The statuses of a shell: 127 for a command that is not found, 126 for one that cannot run.
        Err(error) => {
            let status = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(ErrorKind::NotFound) => 127,
                _ => 126,
            };
            writeln!(ports::open("stderr")?, "{program}: {error}")?;
            Ok(Verdict::Exit(status))
        }
    }
}

/// Runs an interactive shell on the console, which `scripts/vm` connects to its terminal.
fn shell() -> Result<Verdict> {
    let console = File::options()
        .read(true)
        .write(true)
        .open("/dev/hvc0")
        .context("/dev/hvc0")?;
    let mut command = Command::new("/bin/setsid");
    command.args(["-c", "/bin/sh", "-l"]);
    prepare(&mut command)?
        .stdin(console.try_clone()?)
        .stdout(console.try_clone()?)
        .stderr(console);
    Ok(command.status()?.into())
}

fn prepare(command: &mut Command) -> Result<&mut Command> {
    command
        .current_dir(WORK)
        .env_clear()
        .env("PATH", format!("{WORK}:/bin:/sbin:/usr/bin:/usr/sbin"))
        .env("HOME", "/root")
        .env("TERM", "linux");
    for pair in nul_ended(&format!("{TASK}/environment"))? {
        if let Some((name, value)) = pair.split_once('=') {
            command.env(name, value);
        }
    }
    Ok(command)
}

/// Runs a command with pipes as its outputs, which are copied to the ports. Programs
/// expect pipes, and a process that stays in the background cannot block the session.
fn piped(command: &mut Command) -> Result<Verdict> {
    let (stdout, stdout_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, stderr_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (alive, alive_end) = pipe2(OFlag::O_CLOEXEC)?;
    let mut flows = [Flow::new(stdout, "stdout")?, Flow::new(stderr, "stderr")?];
    command
        .stdin(Stdio::null())
        .stdout(stdout_end)
        .stderr(stderr_end)
        .process_group(0);
    let child = command.spawn()?;
    // Closes the writing ends of this process: only the command has the others.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let waiter = thread::spawn(move || wait_for(child, alive_end));

    while !ended(&mut flows, &alive)? {}
    for flow in &mut flows {
        flow.drain()?;
    }
    let status = waiter
        .join()
        .map_err(|_| anyhow!("the waiting thread died"))??;
    Ok(status.into())
}

/// Closes `_alive` when the command has ended.
fn wait_for(mut child: Child, _alive: OwnedFd) -> io::Result<ExitStatus> {
    child.wait()
}

/// Waits for output and copies it. Returns whether the command has ended.
fn ended(flows: &mut [Flow], alive: &OwnedFd) -> Result<bool> {
    let open: Vec<_> = flows.iter_mut().filter(|flow| flow.open).collect();
    let mut fds: Vec<_> = open
        .iter()
        .map(|flow| flow.from.as_fd())
        .chain([alive.as_fd()])
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
    for (flow, _) in open.into_iter().zip(&ready).filter(|(_, ready)| **ready) {
        flow.pass_on()?;
    }
    Ok(ready.last() == Some(&true))
}

/// An output of the command, and the port that it is copied to.
struct Flow {
    from: File,
    to: File,
    open: bool,
}

impl Flow {
    fn new(from: OwnedFd, port: &str) -> Result<Self> {
        Ok(Flow {
            from: from.into(),
            to: ports::open(port)?,
            open: true,
        })
    }

    /// Copies the result of one read. The end of the output closes the flow.
    fn pass_on(&mut self) -> Result<()> {
        let mut buffer = [0; 65536];
        match self.from.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(length) => self.to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.open = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Copies the rest of the pipe, without waiting for more.
    fn drain(&mut self) -> Result<()> {
        fcntl(&self.from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        while self.open {
            self.pass_on()?;
        }
        Ok(())
    }
}

/// Reads the strings of a file, each ended by a NUL; none if the file does not exist.
fn nul_ended(path: &str) -> Result<Vec<String>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => String::from_utf8(text?)?,
    };
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}
