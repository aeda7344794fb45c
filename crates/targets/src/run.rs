//! Runs a program of ours to its end: bounded in time and in what is kept of its output.

use std::io;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use loom_process::group::Group;
use loom_process::tail::Tail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

/// How long a program may take to obey TERM.
const GRACE: Duration = Duration::from_secs(1);
/// How long pipes are read after the program's end; somebody else may keep them open.
const READ_ON: Duration = Duration::from_millis(500);

/// Why there is no end to tell of.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It could not be started.
    NotStarted(io::Error),
    /// It took too long.
    TooLong(Outputs),
    /// It was cancelled.
    Cancelled,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How.
    pub(crate) status: ExitStatus,
    /// What it said.
    pub(crate) said: Outputs,
}

/// What a program said: the ends of it.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) stdout: Tail,
    pub(crate) stderr: Tail,
}

/// Runs a program, with `stdin` to read. Dropped, it kills the program and its group.
pub(crate) async fn to_its_end(
    command: Command,
    stdin: &[u8],
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<Finished, Stopped> {
    let spawned = Group::spawn(command, true, None).await;
    let (mut group, pipes) = spawned.map_err(Stopped::NotStarted)?;
    let mut said = Outputs::default();
    let Outputs { stdout, stderr } = &mut said;
    let ended = {
        let mut talking = std::pin::pin!(async {
            tokio::join!(
                write(pipes.stdin, stdin),
                read(pipes.stdout, stdout),
                read(pipes.stderr, stderr)
            )
        });
        let mut talks = true;
        let mut over = std::pin::pin!(tokio::time::sleep(limit));
        let ended = loop {
            tokio::select! {
                status = group.exited() => break Some(status),
                _ = &mut talking, if talks => talks = false,
                () = &mut over => break None,
                () = cancel.cancelled() => {
                    group.end(GRACE).await;
                    return Err(Stopped::Cancelled);
                }
            }
        };
        if ended.is_some() && talks {
            let _ = tokio::time::timeout(READ_ON, &mut talking).await;
        }
        ended
    };
    let Some(status) = ended else {
        group.end(GRACE).await;
        return Err(Stopped::TooLong(said));
    };
    group.end_leftovers(GRACE).await;
    let status = status.map_err(Stopped::NotStarted)?;
    Ok(Finished { status, said })
}

/// A program need not read what it gets.
async fn write(to: Option<pipe::Sender>, text: &[u8]) {
    if let Some(mut to) = to
        && let Err(error) = to.write_all(text).await
    {
        tracing::debug!(%error, "a program did not read all of its input");
    }
}

async fn read(mut from: pipe::Receiver, into: &mut Tail) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => into.push(&chunk[..read]),
        }
    }
}
