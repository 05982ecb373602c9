// SPDX-License-Identifier: GPL-2.0

//! The process that runs programs, and its supervisor.

#![expect(unsafe_code, reason = "fork(), and a signal handler")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;

use freelist_probe::kcov::Buffer;
use freelist_probe::FailNth;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{fork, pipe, ForkResult, Pid};

use crate::machine::{left, wrong, Machine};
use crate::program::{Call, Program};

/// The time in ms after which a program is taken to hang; programs end within seconds.
const PATIENCE: u16 = 60_000;
/// The entries of each thread's buffer.
const ENTRIES: usize = 1 << 18;
/// The number of programs after which the process is killed with all its files, and another one started.
const LIFE: u32 = 64;

/// The end of a program that found no fault of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    /// The kernel had no memory for the process.
    Killed,
}

/// Runs programs, and records the points that they reach.
pub struct Worker {
    /// The buffers of the two threads.
    kcov: [Buffer; 2],
    running: Option<Running>,
    /// The kernel's taint before the first program.
    taint: String,
}

struct Running {
    pid: Pid,
    programs: u32,
    to: File,
    from: BufReader<File>,
}

impl Worker {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            kcov: [Buffer::new(ENTRIES)?, Buffer::new(ENTRIES)?],
            running: None,
            taint: taint()?,
        })
    }

    /// Passes the points that were reached since the last call to `each`, and clears them.
    pub fn reached(&self, mut each: impl FnMut(u64)) {
        for buffer in &self.kcov {
            buffer.drain(&mut each);
        }
    }

    /// Runs `program`. The error is a description of a fault.
    pub fn run(&mut self, program: &Program) -> Result<End, String> {
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(start(&self.kcov).map_err(|error| error.to_string())?),
        };
        running.programs += 1;
        let last = running.programs >= LIFE;
        let answer = running.ask(program, last);
        let end = match answer {
            Ok(answer) if answer == "ok" => End::Done,
            Ok(answer) if !answer.is_empty() => return Err(answer),
            // The process has ended, or hangs.
            Ok(_) => self.end(false)?,
            Err(error) => return Err(error),
        };
        if end == End::Done && last {
            self.end(true)?;
        }
        let now = taint().map_err(|error| error.to_string())?;
        if now != self.taint {
            return Err(format!(
                "the kernel warned: tainted {}, now {now}",
                self.taint
            ));
        }
        Ok(end)
    }

    /// Ends the process, or finds that it has ended. Fails if the module holds anything of it afterwards.
    pub fn end(&mut self, killed: bool) -> Result<End, String> {
        let Some(running) = self.running.take() else {
            return Ok(End::Done);
        };
        if killed {
            let _ = kill(running.pid, Signal::SIGKILL);
        }
        match waitpid(running.pid, None) {
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => {}
            ended => return Err(format!("the process ended: {ended:?}")),
        }
        left().map_or(Ok(End::Killed), Err)
    }
}

impl Running {
    /// Sends the process a program, and returns its answer; empty if it ended.
    fn ask(&mut self, program: &Program, last: bool) -> Result<String, String> {
        let last = if last { "!" } else { "" };
        // A process that has ended is found below.
        let _ = writeln!(self.to, "{last}{program}");
        let mut ready = [PollFd::new(self.from.get_ref().as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut ready, PollTimeout::from(PATIENCE)), Ok(1)) {
            return Err(format!("it hangs, in\n{}", stacks(self.pid)));
        }
        let mut answer = String::new();
        let _ = self.from.read_line(&mut answer);
        Ok(answer.trim_end().to_owned())
    }
}

/// Returns the kernel's taint: the warnings so far.
fn taint() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/tainted")?
        .trim()
        .to_owned())
}

/// Returns where the threads of a process are in the kernel.
fn stacks(pid: Pid) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let stacks =
        tasks.map(|task| fs::read_to_string(task.path().join("stack")).unwrap_or_default());
    stacks.collect::<Vec<_>>().join("--\n")
}

/// Starts a process.
fn start(kcov: &[Buffer; 2]) -> nix::Result<Running> {
    let (from, answer) = pipe()?;
    let (programs, to) = pipe()?;
    // SAFETY: This process has one thread, so the child may call any function.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Running {
            pid: child,
            programs: 0,
            to: File::from(to),
            from: BufReader::new(File::from(from)),
        }),
        ForkResult::Child => {
            drop((from, to));
            let result = work(
                BufReader::new(File::from(programs)),
                File::from(answer),
                kcov,
            );
            if let Err(error) = &result {
                eprintln!("the process that runs programs: {error}");
            }
            // SAFETY: Ends the process, without the handlers and destructors of the parent.
            unsafe { libc::_exit(result.is_err().into()) }
        }
    }
}

/// Makes a call in this thread, with the failure of one of its allocations.
fn run(machine: &Machine, faults: Option<&FailNth>, call: &Call) {
    match faults {
        Some(faults) if call.fail > 0 => {
            // A signal whose frame cannot be written ends the process, as it should.
            let signal = SigSet::from(Signal::SIGUSR1);
            let _ = signal.thread_block();
            faults.run(call.fail as usize, || machine.run(call));
            let _ = signal.thread_unblock();
        }
        _ => machine.run(call),
    }
}

/// Reads programs, runs them and answers with their results, until there are no more.
fn work(programs: impl BufRead, mut answer: File, kcov: &[Buffer; 2]) -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: The handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    fs::write("/proc/self/oom_score_adj", "1000")?;
    let memory = memfd_create(c"touched", MFdFlags::empty())?.into_raw_fd();
    let machine = Arc::new(Machine::new(memory)?);

    // The second thread runs its part of a program.
    let (give, take) = mpsc::channel::<Vec<Call>>();
    let (done, wait) = mpsc::channel::<io::Result<()>>();
    let second = machine.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            second.begin(true);
            let begun = FailNth::new().and_then(|faults| kcov[1].enable().map(|()| faults));
            let faults = match begun {
                Ok(faults) => faults,
                Err(error) => return drop(done.send(Err(error))),
            };
            let _ = done.send(Ok(()));
            for calls in take {
                calls
                    .iter()
                    .for_each(|call| run(&second, faults.as_ref(), call));
                let _ = done.send(Ok(()));
            }
        });
        let waited = || wait.recv().map_err(io::Error::other)?;
        machine.begin(false);
        let faults = FailNth::new()?;
        kcov[0].enable()?;
        waited()?;
        for line in programs.lines() {
            let line = line?;
            let text = line.trim_start_matches('!');
            let program: Program = text.parse().map_err(io::Error::other)?;
            let (theirs, ours): (Vec<Call>, _) = program.0.iter().partition(|call| call.second);
            machine.set_up();
            give.send(theirs).map_err(io::Error::other)?;
            ours.iter()
                .for_each(|call| run(&machine, faults.as_ref(), call));
            waited()?;
            let mut bad = wrong();
            if text.len() == line.len() {
                machine.clear();
                bad = bad.or_else(left);
            }
            writeln!(answer, "{}", bad.as_deref().unwrap_or("ok"))?;
        }
        drop(give);
        Ok(())
    })
}
