//! How `loom work …` inside a program speaks to the agent that runs it: by a Unix socket of its own for each attempt.
//!
//! The program knows the path of its socket ([`VARIABLE`]) and nothing else: no address of NATS, no credentials, no way to
//! name an item. Which item it speaks of is said by the socket that it speaks by. The agent asks the coordinator, under its
//! own lease.
//!
//! | file | what it does |
//! |---|---|
//! | [`message`] | requests and answers; both sides read them here |
//! | [`server`] | the agent's side: how long and how much may be said |
//! | [`peer`] | who may ask |
//! | [`broker`] | what may be asked, and what is done then |
//! | [`children`] | what an item may submit |
//! | [`end`] | the end of an attempt as the program has told it |
//! | [`client`] | the program's side |
//!
//! **States of an attempt's end.** `open` → (`complete` | `fail`, under a lease that holds) → `told` → `closed`. Told
//! means noted: the agent reports it when the program has exited and `--after` has succeeded, as any other end, so that
//! whatever is looked at in the end holds for it too. The first end counts; the same kind again is answered alike and
//! changes nothing, another kind is `terminal-state`. Closed is the attempt once the agent has made up its mind; what comes
//! then is `stale-lease`. A program that has told its end and gives no sign of life for [`TIDY`] is ended.
//!
//! **Messages.** One line of JSON each way and connection: `{"verb":"progress","request":{…}}`, answered by `{"ok":…}` or
//! `{"error":…}`, an error of the wire.
//!
//! | verb | request | answer |
//! |---|---|---|
//! | `progress` | `{progress?, message?}` | null; `stale-lease` where the lease is gone |
//! | `complete` | `{summary?, output?, artifacts?}` | null; `stale-lease`, `too-large` |
//! | `fail` | `{message, code?, permanent?, retryAfterMs?}` | null; `stale-lease` |
//! | `show` | – | the item |
//! | `submit` | `{description, capability, priority?, labels?, contextData?, wait?}` | the answer to the submission; `forbidden` |
//! | `await` | `{id}` | the item once it has ended; null after [`AWAIT`]: ask again |
//!
//! **What goes wrong.**
//!
//! | what | what happens |
//! |---|---|
//! | a line over [`LONGEST_LINE`] | `too-large`; at no time is more than that kept of it |
//! | a line that is not whole [`READ_WITHIN`] after the connection | the connection is closed, nothing is done |
//! | a connection that is closed in the middle of its line | nothing is done |
//! | more than [`PLACES`] connections | the others wait in the kernel; it is the item's own trouble |
//! | another user connects (its directory keeps it out already), or a process that does not come from a program of this attempt (Linux): the program of another item | `forbidden`, nothing is read |
//! | what is no JSON, no verb, or has a field that nobody reads | `invalid-request` |
//! | an answer that is not read | given up after [`READ_WITHIN`] |
//! | the coordinator is away | `progress`, `submit`, `await`, `show`: `unavailable`; `complete` and `fail` are noted all the same: the agent's report waits for it |
//! | the agent is killed | nobody accepts: `loom work` says so (exit code 3); what was told and not reported yet is lost with the attempt, as all of it; the directory is removed by the next agent of this user |
//! | no directory can be made, or all paths are too long | as for any other directory: the item goes back where the host is in trouble, else `loom work` says that there is no socket |
//!
//! A process comes from a program by its parents. One whose parent has ended (a daemon, what `tmux` or Docker runs) belongs
//! to nobody, and may ask nothing.
//!
//! Out of reach: a program of the same user can read `/proc` of the agent (its environment and its command line have the
//! address of NATS) and its files, and can send signals to its processes. Whoever runs what strangers wrote puts it under
//! another user, or into a container that has neither.

pub mod broker;
pub mod children;
pub mod client;
pub mod end;
pub mod message;
pub mod peer;
mod refusal;
pub mod server;

use std::time::Duration;

/// The variable with the path of the socket.
pub const VARIABLE: &str = "LOOM_WORK_SOCKET";
/// The longest request, in bytes: the largest result, or the largest submission, with room for its escapes.
pub const LONGEST_LINE: usize = 1024 * 1024;
/// The longest answer, in bytes.
pub const LONGEST_ANSWER: usize = 8 * 1024 * 1024;
/// How long a request may take to be there, and an answer to be read.
pub const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take to be made.
pub const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// How many connections of one attempt are answered at the same time.
pub const PLACES: usize = 32;
/// How long one `await` waits.
pub const AWAIT: Duration = Duration::from_secs(10);
/// How long a program that has told its end may go on without a sign of life.
pub const TIDY: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests;
