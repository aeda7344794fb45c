//! Runs one program to its end: feeds it, reads it, watches its clocks, stops it when told.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use loom_client::Job;
use loom_client::clock;
use loom_protocol::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::Instant;

use super::capture::Capture;
use super::exit_rule::Exit;
use super::program::listener::Listener;
use super::secrets::Secrets;
use super::socket::TIDY;
use super::socket::broker::Broker;
use super::workdir::Workdir;
use loom_process::group::Group;
use loom_process::warden::Warden;

/// How long a program's pipes are read after its end; somebody else may keep them open for ever.
const READ_ON: Duration = Duration::from_millis(500);
const CHUNK: usize = 64 * 1024;

/// What a program is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From TERM to KILL.
    pub grace: Duration,
    /// How long it may run.
    pub max_runtime: Option<Duration>,
    /// How long it may be silent.
    pub silent_timeout: Option<Duration>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited(Exit),
    /// It was silent for too long.
    Silent(Duration),
    /// It ran for too long.
    TooLong(Duration),
    /// It had told its result, or its end by `loom work`, and did not exit.
    Lingering,
    /// The job was cancelled.
    Cancelled,
}

/// A program that has ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// When it was started.
    pub started_at: Timestamp,
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: Capture,
    /// Its standard error.
    pub stderr: Capture,
}

/// For whom programs are run, and within which bounds.
pub struct Execution<'a> {
    /// The job that it works for.
    pub job: &'a Job,
    /// What it is bound to.
    pub bounds: Bounds,
    /// Who answers it, and knows what it has told.
    pub broker: &'a Broker,
    /// The directory that it works in, where it has one of its own.
    pub workdir: Option<&'a Workdir>,
    /// What is taken out of what it says.
    pub secrets: &'a Secrets,
    /// Whether a cancel of the job stops it.
    pub stoppable: bool,
    /// Who ends it if this process is killed.
    pub warden: Option<&'a Warden>,
}

impl Execution<'_> {
    /// Runs a program to its end, with `stdin` to read.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run(&self, command: Command, stdin: Option<Bytes>) -> io::Result<Finished> {
        self.run_heard(command, stdin, None).await
    }

    /// The same with a listener for its events: what else it writes is no sign of life, and one that has told its
    /// result and does not exit is ended after the grace.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run_heard(
        &self,
        mut command: Command,
        stdin: Option<Bytes>,
        listener: Option<Listener>,
    ) -> io::Result<Finished> {
        let started_at = clock::now();
        if let Some(workdir) = self.workdir {
            workdir.lend(&mut command)?;
        }
        let (mut group, pipes) = Group::spawn(command, stdin.is_some(), self.warden).await?;
        let pid = group
            .id()
            .map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if let Some(pid) = pid {
            self.broker.programs().add(pid);
        }
        if let Some(workdir) = self.workdir {
            workdir.note(group.id());
        }
        let heard = watch::Sender::new(Sign {
            last: Instant::now(),
            has_result: false,
        });
        let [mut out, mut err] = [(); 2].map(|()| Capture::new(self.secrets));
        if let Some(listener) = listener {
            (out, err) = (out.heard_by(listener), err.not_heard());
        }
        let ended = {
            let talking = async {
                tokio::join!(
                    write(pipes.stdin, stdin),
                    read(pipes.stdout, &mut out, self.job, &heard),
                    read(pipes.stderr, &mut err, self.job, &heard),
                );
            };
            let mut talking = pin!(talking.fuse());
            let ended = tokio::select! {
                ended = watch_over(&mut group, self, &heard) => ended?,
                never = until_silent_for_ever(&mut talking) => match never {},
            };
            if !talking.is_terminated() {
                // What is still in the pipes belongs to the output.
                let _ = tokio::time::timeout(READ_ON, &mut talking).await;
            }
            ended
        };
        if let Some(pid) = pid {
            self.broker.programs().remove(pid);
        }
        group.end_leftovers(self.bounds.grace).await;
        out.finish(self.job);
        err.finish(self.job);
        Ok(Finished {
            started_at,
            ended,
            stdout: out,
            stderr: err,
        })
    }
}

/// Both pipes may be closed long before the program ends.
async fn until_silent_for_ever(
    talking: &mut (impl FusedFuture<Output = ()> + Unpin),
) -> Infallible {
    talking.await;
    std::future::pending().await
}

/// Waits for the end of a program, and ends it when a clock runs out or the job is cancelled.
async fn watch_over(
    group: &mut Group,
    execution: &Execution<'_>,
    heard: &watch::Sender<Sign>,
) -> io::Result<Ended> {
    let bounds = execution.bounds;
    let started = Instant::now();
    let mut silence = Silence::new(bounds.silent_timeout, started);
    let ended = loop {
        tokio::select! {
            status = group.exited() => return Ok(Ended::Exited(status?.into())),
            limit = at(started, bounds.max_runtime) => break Ended::TooLong(limit),
            limit = silence.over() => {
                let last_sign = heard.borrow().last.max(execution.broker.last_sign(started));
                if silence.is_broken(last_sign) {
                    continue;
                }
                break Ended::Silent(limit);
            }
            () = lingering(heard, bounds.grace) => break Ended::Lingering,
            () = tidied_up(heard, execution.broker) => break Ended::Lingering,
            () = execution.job.cancelled().cancelled(), if execution.stoppable => {
                break Ended::Cancelled;
            }
        }
    };
    group.end(bounds.grace).await;
    Ok(ended)
}

/// The last sign of life.
#[derive(Debug, Clone, Copy)]
struct Sign {
    last: Instant,
    /// Whether the program has told its result.
    has_result: bool,
}

/// Waits until a program has told its result and nothing more for so long.
async fn lingering(heard: &watch::Sender<Sign>, grace: Duration) {
    let mut signs = heard.subscribe();
    loop {
        let sign = *signs.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(sign.last + grace), if sign.has_result => return,
            changed = signs.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
        }
    }
}

/// Waits until a program has told its end by `loom work`, and has given no sign of life since for long enough.
async fn tidied_up(heard: &watch::Sender<Sign>, broker: &Broker) {
    broker.told().await;
    let told = Instant::now();
    loop {
        let last = heard.borrow().last.max(broker.last_sign(told));
        let until = last.max(told) + TIDY;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// The clock of `--silent-timeout`.
struct Silence {
    limit: Option<Duration>,
    since: Instant,
}

impl Silence {
    const fn new(limit: Option<Duration>, since: Instant) -> Self {
        Self { limit, since }
    }

    async fn over(&self) -> Duration {
        at(self.since, self.limit).await
    }

    /// Whether there was a sign of life since; then the clock begins anew from there.
    fn is_broken(&mut self, last_sign: Instant) -> bool {
        let broken = last_sign > self.since;
        self.since = self.since.max(last_sign);
        broken
    }
}

/// Waits for the end of a limit, if there is one.
async fn at(start: Instant, limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep_until(start + limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// Writes all of it and closes. A program need not read what it gets.
async fn write(stdin: Option<pipe::Sender>, text: Option<Bytes>) {
    if let (Some(mut stdin), Some(text)) = (stdin, text)
        && let Err(error) = stdin.write_all(&text).await
    {
        tracing::debug!(%error, "the program did not read all of its input");
    }
}

/// Reads until the end.
async fn read(
    mut stream: pipe::Receiver,
    capture: &mut Capture,
    job: &Job,
    heard: &watch::Sender<Sign>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return,
            Ok(read) => {
                let before = capture.signs();
                capture.feed(&chunk[..read], job);
                if capture.signs() > before {
                    let facts = capture.facts();
                    heard.send_replace(Sign {
                        last: Instant::now(),
                        has_result: facts.is_some_and(|facts| facts.result.is_some()),
                    });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the program's output can't be read any more");
                return;
            }
        }
    }
}
