//! Waits for a coordinator that is not up yet, and hears meanwhile that it need not.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use super::agent_events::say;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The pause between two tries, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The signals that end an agent: TERM, Ctrl-C, hang-up.
pub struct Signals([Signal; 3]);

impl Signals {
    /// Listens to them from now on.
    ///
    /// # Errors
    /// The system does not let this process listen.
    pub fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [terminate, interrupt, hang_up] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

/// Tries until it succeeds or fails for good; what is waited for is said once on standard error. `None`:
/// a signal came first.
///
/// # Errors
/// A failure that no repetition will mend.
pub async fn until_there<T, E: Display>(
    signals: &mut Signals,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
    is_temporary: impl Fn(&E) -> bool,
) -> Result<Option<T>, E> {
    let mut pause = PAUSE.0;
    let mut is_told = false;
    loop {
        let error = tokio::select! {
            tried = attempt() => match tried {
                Ok(there) => return Ok(Some(there)),
                Err(error) if is_temporary(&error) => error,
                Err(error) => return Err(error),
            },
            () = signals.next() => return Ok(None),
        };
        if !is_told {
            say(&format!(
                "the agent waits: {error}; it is tried again until that works, Ctrl-C or TERM ends it"
            ));
            is_told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.next() => return Ok(None),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}
