//! Following the events of a coordinator, over interruptions: what `loom events` and `loom work watch` share.

use std::time::Duration;

use loom_protocol::event::Event;

use super::exit::CliResult;
use super::output::note;
use crate::api_client::{ApiClient, ApiError, EventStream, Heard};

/// The pause before the coordinator is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a follower learns.
#[derive(Debug)]
pub(super) enum Step {
    /// Something happened.
    Event(Box<Event>),
    /// Something may have happened that was not told: the connection was interrupted, or this side was too slow.
    Gap,
}

/// Follows the events that a query names; the connection is made anew whenever it breaks.
pub(super) struct Follower<'a> {
    api: &'a ApiClient,
    query: Vec<(&'static str, String)>,
    stream: Option<EventStream>,
    away: bool,
}

impl<'a> Follower<'a> {
    /// Begins to follow: from here on nothing is missed.
    ///
    /// # Errors
    /// The coordinator is not there, or refuses; only later it is waited for.
    pub async fn begin(api: &'a ApiClient, query: Vec<(&'static str, String)>) -> CliResult<Self> {
        let stream = api.follow(&query).await?;
        Ok(Self {
            api,
            query,
            stream: Some(stream),
            away: false,
        })
    }

    /// What comes next. Waits for a coordinator that is away, and says so once.
    ///
    /// # Errors
    /// The coordinator refuses what it took before.
    pub async fn next(&mut self) -> CliResult<Step> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.api.follow(&self.query).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        if std::mem::take(&mut self.away) {
                            note("the coordinator is back; what happened meanwhile is not shown");
                        }
                        return Ok(Step::Gap);
                    }
                    Err(error) => self.bear(error).await?,
                }
                continue;
            };
            match stream.next().await {
                Ok(Heard::Event(event)) => return Ok(Step::Event(event)),
                Ok(Heard::Missed(0)) => {
                    note(
                        "the coordinator went on after an interruption; what happened meanwhile is not shown",
                    );
                    return Ok(Step::Gap);
                }
                Ok(Heard::Missed(count)) => {
                    note(&format!(
                        "{count} events came faster than they were read, and are not shown"
                    ));
                    return Ok(Step::Gap);
                }
                Err(error) => {
                    self.stream = None;
                    self.bear(error).await?;
                }
            }
        }
    }

    async fn bear(&mut self, error: ApiError) -> CliResult {
        if !error.is_transient() {
            return Err(error.into());
        }
        if !std::mem::replace(&mut self.away, true) {
            note(&format!("{error}; waiting for it"));
        }
        tokio::time::sleep(ASK_AGAIN).await;
        Ok(())
    }
}
