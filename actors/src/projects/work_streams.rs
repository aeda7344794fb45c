//! Work streams of projects that are not awake: clients make them too. Reads only.
//!
//! One with Loom's metadata wakes its project. Any other one is a sign of life when nobody consumes it and a submission
//! has waited on it ([`crate::domain::foreign`]). Until then it is kept here by name, and looked at every
//! [`LOOK_EVERY`]. What has a consumer, has vanished, or cannot be read leaves, until the list of all streams names it
//! again.
//!
//! The names do not say which project it is (they have lost its case and its `-`): a submission's subject does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use async_nats::jetstream::{self, response::Response, stream::RawMessageErrorKind};
use loom_protocol::{ProjectId, Timestamp, names};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::domain::foreign::{StreamSight, StreamVerdict, Waiting, stream_verdict};
use crate::work_dispatcher::PROJECT_KEY;

/// How often streams are looked at that may become a sign of life.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many are looked at each time, with at most [`MOST_PROJECTS`] + 1 requests each; the others have their turn after
/// them.
const LOOKS: usize = 32;
/// How many are kept. Those beyond are kept in turn: the list of streams goes on where it ended the last time.
const MOST: usize = 1_024;
/// How many projects a stream is believed to be of. Each has an id with the same stream.
const MOST_PROJECTS: usize = 4;

/// The streams that are looked at.
#[derive(Default)]
pub(super) struct WorkStreams(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    turn: VecDeque<Candidate>,
    names: BTreeSet<String>,
    /// The name with which the last list filled it up.
    listed_to: String,
}

/// One that is looked at.
struct Candidate {
    stream: String,
    looks_without_consumer: u32,
    /// The oldest submission of each project on it, and when it was seen first.
    seen: HashMap<ProjectId, (u64, Instant)>,
}

impl Candidate {
    fn new(stream: String) -> Self {
        Self {
            stream,
            looks_without_consumer: 0,
            seen: HashMap::new(),
        }
    }
}

impl WorkStreams {
    /// One was just made: it is the next to be looked at.
    pub fn told(&self, stream: &str) {
        let mut kept = self.0.lock();
        if kept.names.insert(stream.to_owned()) {
            kept.turn.push_front(Candidate::new(stream.to_owned()));
        }
        if kept.turn.len() > MOST
            && let Some(last) = kept.turn.pop_back()
        {
            kept.names.remove(&last.stream);
        }
    }

    /// These are all that there are, of projects that are not awake.
    pub fn listed(&self, all: BTreeSet<String>) {
        let mut kept = self.0.lock();
        kept.turn
            .retain(|candidate| all.contains(&candidate.stream));
        kept.names.retain(|name| all.contains(name));
        let from = std::mem::take(&mut kept.listed_to);
        let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| *name <= from);
        for name in after.into_iter().chain(before) {
            if kept.turn.len() >= MOST {
                break;
            }
            if kept.names.insert(name.clone()) {
                kept.turn.push_back(Candidate::new(name.clone()));
                kept.listed_to = name;
            }
        }
    }

    /// Looks at those whose turn it is. Gives the projects that they are signs of life of.
    pub async fn look(&self, jetstream: &jetstream::Context) -> Vec<ProjectId> {
        let mut found = Vec::new();
        let mut turn: VecDeque<_> = {
            let mut kept = self.0.lock();
            let looks = LOOKS.min(kept.turn.len());
            kept.turn.drain(..looks).collect()
        };
        while let Some(mut candidate) = turn.pop_front() {
            let looked = candidate.look(jetstream).await;
            let again = match looked {
                Ok(Some((StreamVerdict::Wake, projects))) => {
                    found.extend(projects);
                    false
                }
                Ok(Some((StreamVerdict::LookAgain, _))) => true,
                Ok(Some((StreamVerdict::LeaveAlone, _)) | None) => false,
                Err(error) => {
                    tracing::debug!(stream = candidate.stream, "could not be looked at: {error}");
                    // NATS may be away: the others are not asked for in vain.
                    let mut kept = self.0.lock();
                    kept.names.remove(&candidate.stream);
                    while let Some(next) = turn.pop_back() {
                        kept.turn.push_front(next);
                    }
                    break;
                }
            };
            let mut kept = self.0.lock();
            if again {
                kept.turn.push_back(candidate);
            } else {
                kept.names.remove(&candidate.stream);
            }
        }
        found
    }
}

impl Candidate {
    /// What it is; `None` where it is no more, or is of no project.
    async fn look(
        &mut self,
        jetstream: &jetstream::Context,
    ) -> Result<Option<(StreamVerdict, Vec<ProjectId>)>, async_nats::Error> {
        let Some(seen) = StreamSeen::of(jetstream, &self.stream).await? else {
            return Ok(None);
        };
        if let Some(owner) = seen.config.metadata.get(PROJECT_KEY) {
            let owner = ProjectId::new(owner).ok();
            let owner = owner.filter(|owner| names::work_stream(owner) == self.stream);
            return Ok(owner.map(|owner| (StreamVerdict::Wake, vec![owner])));
        }
        self.looks_without_consumer = match seen.state.consumer_count {
            0 => self.looks_without_consumer.saturating_add(1),
            _ => 0,
        };
        let mut sight = StreamSight {
            ours: false,
            consumers: seen.state.consumer_count,
            looks_without_consumer: self.looks_without_consumer,
            oldest: None,
        };
        let verdict = stream_verdict(&sight);
        if verdict != StreamVerdict::LookAgain || seen.state.messages == 0 {
            return Ok(Some((verdict, Vec::new())));
        }
        let mut woken = Vec::new();
        let mut known = HashMap::new();
        for filter in seen.queues(&self.stream) {
            let Some((project, message)) =
                oldest_submission(jetstream, &self.stream, &filter).await?
            else {
                continue;
            };
            let first_seen = match self.seen.get(&project) {
                Some((sequence, at)) if *sequence == message.sequence => *at,
                _ => Instant::now(),
            };
            known.insert(project.clone(), (message.sequence, first_seen));
            sight.oldest = Some(Waiting {
                by_server: seen.now.since(message.published),
                since_seen: first_seen.elapsed(),
            });
            if stream_verdict(&sight) == StreamVerdict::Wake {
                woken.push(project);
            }
        }
        self.seen = known;
        let verdict = if woken.is_empty() {
            StreamVerdict::LookAgain
        } else {
            StreamVerdict::Wake
        };
        Ok(Some((verdict, woken)))
    }
}

/// What the server says of a stream, as far as it matters here.
#[derive(Deserialize)]
struct StreamSeen {
    config: ConfigSeen,
    state: StateSeen,
    /// The server's time.
    #[serde(rename = "ts")]
    now: Timestamp,
}

#[derive(Deserialize)]
struct ConfigSeen {
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
struct StateSeen {
    messages: u64,
    consumer_count: usize,
}

impl StreamSeen {
    async fn of(
        jetstream: &jetstream::Context,
        stream: &str,
    ) -> Result<Option<Self>, async_nats::Error> {
        let request = format!("STREAM.INFO.{stream}");
        match jetstream.request(request, &json!({})).await? {
            Response::Ok(seen) => Ok(Some(seen)),
            Response::Err { error }
                if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            Response::Err { error } => Err(error.into()),
        }
    }

    /// Where submissions are looked for: those of the projects that its subjects name, or any.
    fn queues(&self, stream: &str) -> Vec<String> {
        let named: BTreeSet<ProjectId> = self
            .config
            .subjects
            .iter()
            .filter_map(|subject| names::project_of_queue(subject))
            .filter(|project| names::work_stream(project) == stream)
            .take(MOST_PROJECTS)
            .collect();
        if named.is_empty() {
            return vec![names::ALL_QUEUES.to_owned()];
        }
        named.iter().map(names::queue_filter).collect()
    }
}

/// A submission.
struct Submission {
    sequence: u64,
    published: Timestamp,
}

/// The submission that a stream has held longest, and whose it is; `None` where there is none of a project that has
/// this stream.
async fn oldest_submission(
    jetstream: &jetstream::Context,
    stream: &str,
    filter: &str,
) -> Result<Option<(ProjectId, Submission)>, async_nats::Error> {
    let handle = jetstream.get_stream_no_info(stream).await?;
    let first = handle.raw_message_builder().sequence(1);
    let message = match first.next_by_subject(filter).send().await {
        Ok(message) => message,
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let millis = message.time.unix_timestamp_nanos() / 1_000_000;
    let submission = Submission {
        sequence: message.sequence,
        published: Timestamp::from_millis(i64::try_from(millis).unwrap_or_default()),
    };
    let project = names::project_of_queue(&message.subject);
    let project = project.filter(|project| names::work_stream(project) == stream);
    Ok(project.map(|project| (project, submission)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> BTreeSet<String> {
        range.map(|n| format!("LOOM_WORK_{n:05}")).collect()
    }

    #[test]
    fn thousands_of_streams_are_kept_in_turn() {
        let streams = WorkStreams::default();
        let all = names(0..MOST * 5 / 2);
        let mut had = BTreeSet::new();
        for _ in 0..3 {
            streams.listed(all.clone());
            let mut kept = streams.0.lock();
            assert_eq!(kept.turn.len(), MOST);
            assert_eq!(kept.names.len(), MOST);
            had.extend(kept.names.clone());
            // All of them have been looked at, and have a consumer.
            kept.turn.clear();
            kept.names.clear();
        }
        assert_eq!(had, all);
    }

    #[test]
    fn a_stream_that_was_just_made_is_next_and_one_that_vanished_leaves() {
        let streams = WorkStreams::default();
        streams.listed(names(0..MOST));
        streams.told("LOOM_WORK_NEW");
        streams.told("LOOM_WORK_NEW");
        {
            let kept = streams.0.lock();
            assert_eq!(kept.turn.len(), MOST);
            assert_eq!(kept.turn[0].stream, "LOOM_WORK_NEW");
        }
        streams.listed(names(3..5));
        let kept = streams.0.lock();
        let left: BTreeSet<_> = kept.turn.iter().map(|c| c.stream.clone()).collect();
        assert_eq!(left, names(3..5));
        assert_eq!(kept.names, left);
    }
}
