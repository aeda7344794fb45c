//! Runs a program of ours to its end: bounded in time and in what is kept of its output.

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loom_process::group::Group;
use loom_process::tail::Tail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a program may take to obey TERM.
const GRACE: Duration = Duration::from_secs(1);
/// How long pipes are read after the program's end; somebody else may keep them open.
const READ_ON: Duration = Duration::from_millis(500);

/// What a program gets to read: a greeting, and the rest once it has answered that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    /// What is written at once.
    pub(crate) greeting: &'a str,
    /// The line by which the greeting is answered.
    pub(crate) ready: &'a str,
    /// What is written then.
    pub(crate) rest: &'a str,
}

/// A program that has ended, or was ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How.
    pub(crate) how: Ending,
    /// Whether the rest of the input was written, or a part of it.
    pub(crate) was_ready: bool,
    /// What it said.
    pub(crate) said: Outputs,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It took too long.
    TooLong,
    /// It was cancelled.
    Cancelled,
}

/// What a program said: the ends of it.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) stdout: Tail,
    pub(crate) stderr: Tail,
}

/// Runs a program to its end. Dropped, it kills the program and its group.
///
/// # Errors
/// It could not be started.
pub(crate) async fn to_its_end(
    command: Command,
    input: Input<'_>,
    limit: Duration,
    cancel: &CancellationToken,
) -> io::Result<Finished> {
    let (mut group, pipes) = Group::spawn(command, true, None).await?;
    let mut said = Outputs::default();
    let was_ready = AtomicBool::new(false);
    let Outputs { stdout, stderr } = &mut said;
    let (answered, answer) = oneshot::channel();
    let how = {
        let mut talking = std::pin::pin!(async {
            tokio::join!(
                write(pipes.stdin, input, answer, &was_ready),
                read(pipes.stdout, stdout, Some((input.ready, answered))),
                read(pipes.stderr, stderr, None)
            )
        });
        let mut talks = true;
        let mut over = std::pin::pin!(tokio::time::sleep(limit));
        let how = loop {
            tokio::select! {
                status = group.exited() => break Ending::Exited(status?),
                _ = &mut talking, if talks => talks = false,
                () = &mut over => break Ending::TooLong,
                () = cancel.cancelled() => break Ending::Cancelled,
            }
        };
        if matches!(how, Ending::Exited(_)) && talks {
            let _ = tokio::time::timeout(READ_ON, &mut talking).await;
        }
        how
    };
    if matches!(how, Ending::Exited(_)) {
        group.end_leftovers(GRACE).await;
    } else {
        group.end(GRACE).await;
    }
    Ok(Finished {
        how,
        was_ready: was_ready.into_inner(),
        said,
    })
}

/// A program need not read what it gets.
async fn write(
    to: Option<pipe::Sender>,
    input: Input<'_>,
    answer: oneshot::Receiver<()>,
    was_ready: &AtomicBool,
) {
    let Some(mut to) = to else {
        return;
    };
    let writing = async {
        to.write_all(input.greeting.as_bytes()).await?;
        // Nothing more is written to one that ends without an answer.
        if answer.await.is_ok() {
            was_ready.store(true, Ordering::Relaxed);
            to.write_all(input.rest.as_bytes()).await?;
        }
        io::Result::Ok(())
    };
    if let Err(error) = writing.await {
        tracing::debug!(%error, "a program did not read all of its input");
    }
}

async fn read(
    mut from: pipe::Receiver,
    into: &mut Tail,
    mut waits: Option<(&str, oneshot::Sender<()>)>,
) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => into.push(&chunk[..read]),
        }
        let is_there = |(line, _): &mut (&str, _)| {
            let text = into.text(usize::MAX);
            text.lines().any(|said| said == *line)
        };
        if let Some((_, answered)) = waits.take_if(is_there) {
            // Who waits for it may have gone.
            let _ = answered.send(());
        }
    }
}
