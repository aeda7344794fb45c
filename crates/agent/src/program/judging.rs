//! What the end of a known program means for its item.

use jiff::tz::TimeZone;
use loom_client::{Job, JobEnd, JobResult, clock};
use loom_protocol::Body;
use loom_protocol::agent::MAX_PAUSE;
use loom_protocol::text::without_middle;
use loom_protocol::work::{Reason, ReportedResult, limits};
use serde_json::{Value, json};

use super::facts::{Facts, LONGEST_ANSWER, ResultEvent};
use super::run::Launcher;
use super::verdict::{self, Verdict};
use crate::execute::{self, Finished};
use crate::exit_rule::Exit;
use crate::limit_met::{Class, LimitMet};
use crate::result::{beginning_of, error_of, failure};
use crate::runner::Runner;

/// How much of a program's own words goes into an error, in bytes; the ends of its streams follow.
const OWN_WORDS: usize = 1_200;
/// The room for what goes into a result beside its output, in bytes.
const AROUND: usize = 8 * 1024;

impl Runner {
    /// What the end of a known program means for the item.
    pub(crate) fn judge_known(
        &self,
        launcher: &Launcher,
        job: &Job,
        finished: &Finished,
        has_changed: Option<bool>,
    ) -> JobEnd {
        let nothing = Facts::default();
        let facts = finished.stdout.facts().unwrap_or(&nothing);
        let ended = match finished.ended {
            execute::Ended::Exited(Exit::Code(code)) => verdict::Ended::Code(code),
            execute::Ended::Exited(Exit::Signal(_)) => verdict::Ended::Signal,
            execute::Ended::Lingering => verdict::Ended::Lingering,
            execute::Ended::Silent(_) | execute::Ended::TooLong(_) => verdict::Ended::TimedOut,
            execute::Ended::Cancelled => return stopped(launcher, facts),
        };
        let met = self.met(facts, finished, ended);
        let class = met.as_ref().map(|met| met.class);
        let meaning = match ended {
            verdict::Ended::Code(code) => launcher.adapter.exit_meaning(code),
            _ => None,
        };
        let (code, message, reason) = match launcher.adapter.verdict(
            facts,
            ended,
            class,
            has_changed,
        ) {
            Verdict::Done => {
                self.rests.lock().over(finished.started_at);
                return JobEnd::Completed(result_of(launcher, facts));
            }
            Verdict::Unspent(class) => {
                let what = meaning.map_or("it gave no reason", |meaning| meaning.what);
                let met = met.unwrap_or_else(|| LimitMet {
                    class,
                    until: None,
                    said: what.into(),
                });
                return self.rest(&met, finished);
            }
            Verdict::TimedOut => {
                let error = self.judge_failure(finished, "");
                return JobEnd::Failed(launcher.at_last(job, error));
            }
            Verdict::Denied => {
                let tools = facts.denied.join(", ");
                let message = format!(
                    "tools were denied, and nothing has changed: {tools} (--allow says what it may do)"
                );
                ("denied".to_owned(), message, Reason::Denied)
            }
            Verdict::Failed => match &facts.result {
                Some(ResultEvent::Bad { code, message }) => {
                    (code.clone(), message.clone(), Reason::AgentError)
                }
                _ => (
                    "failed".to_owned(),
                    "it failed".to_owned(),
                    Reason::AgentError,
                ),
            },
            Verdict::NoResult => {
                let (code, message) = no_result(finished, facts, meaning);
                // What its exit code means is known better than that nothing was said.
                let reason = match meaning {
                    Some(_) => Reason::AgentError,
                    None => Reason::NoResult,
                };
                (code, message, reason)
            }
        };
        let mut message = without_middle(&message, OWN_WORDS);
        if let Some(session) = &facts.session {
            message.extend([" (session ", &without_middle(session, 100), ")"]);
        }
        let message = error_of(&message, &finished.stdout, &finished.stderr);
        let error = failure(true, code.chars().take(60).collect::<String>(), message);
        let error = error.reason(reason);
        JobEnd::Failed(launcher.at_last(job, error))
    }

    /// What is nobody's failure, where the program says so: by an event, by its result, or at the very end of its text.
    fn met(&self, facts: &Facts, finished: &Finished, ended: verdict::Ended) -> Option<LimitMet> {
        let (limits, now, zone) = (&self.plan.limits, clock::now(), TimeZone::system());
        let of_text = |text: &str| limits.of_result(text, now, &zone);
        match &facts.result {
            Some(ResultEvent::Good) => None,
            // The sentence may name a time where the event does not.
            Some(ResultEvent::Bad { message, .. }) => match (&facts.limit, of_text(message)) {
                (Some(limit), said) => Some(LimitMet {
                    until: limit.until.or_else(|| said?.until),
                    ..limit.clone()
                }),
                (None, said) => said,
            },
            None => {
                let by_event = facts.limit.clone();
                let by_event = by_event.or_else(|| of_text(facts.trouble.as_deref()?));
                if by_event.is_some() || ended == verdict::Ended::TimedOut {
                    return by_event;
                }
                limits.of_failure(&finished.stdout, &finished.stderr, now, &zone)
            }
        }
    }

    /// The item goes back unspent, and the agent rests.
    pub(crate) fn rest(&self, met: &LimitMet, finished: &Finished) -> JobEnd {
        let now = clock::now();
        let named = self.rests.lock().until(met, finished.started_at, now);
        let until = named.min(now.after(MAX_PAUSE));
        let class = met.class;
        if until == named {
            tracing::warn!(said = met.said, %until, "{class}");
        } else {
            tracing::warn!(said = met.said, %until, %named, "{class}; no pause is longer than 31 days");
        }
        let until = Some(named);
        let reason = match class {
            Class::Limit => return JobEnd::LimitReached(until),
            Class::Outage => Reason::Outage,
            Class::Account => Reason::Account,
        };
        JobEnd::Unspent { reason, until }
    }
}

fn no_result(
    finished: &Finished,
    facts: &Facts,
    meaning: Option<super::Meaning>,
) -> (String, String) {
    let how = match finished.ended {
        execute::Ended::Exited(exit) => exit.to_string(),
        _ => "it was ended".to_owned(),
    };
    let (code, what) = match meaning {
        Some(meaning) => (meaning.code, meaning.what),
        None => ("no-result", "it has told no result"),
    };
    let trouble = facts.trouble.as_ref().map(|trouble| format!("\n{trouble}"));
    (
        code.to_owned(),
        format!("{how}: {what}{}", trouble.unwrap_or_default()),
    )
}

/// What there was when the item was called off.
fn stopped(launcher: &Launcher, facts: &Facts) -> JobEnd {
    match facts.answer {
        Some(_) => JobEnd::Stopped(result_of(launcher, facts)),
        None => JobEnd::Stopped(JobResult::summary("stopped before it said anything")),
    }
}

fn result_of(launcher: &Launcher, facts: &Facts) -> JobResult {
    let answer = facts.answer.as_deref().unwrap_or_default().trim();
    let output = match &facts.structured {
        Some(structured) => Body::of(structured).ok(),
        None => body_of(answer),
    };
    let mut artifacts: Vec<Value> = Vec::new();
    if let Some(session) = &facts.session {
        let agent_type = launcher.adapter.agent_type();
        artifacts.push(
            json!({"kind": "session", "agentType": agent_type, "id": without_middle(session, 200)}),
        );
    }
    if !facts.denied.is_empty() {
        artifacts.push(json!({"kind": "denied", "tools": facts.denied}));
    }
    let result = JobResult::from(ReportedResult {
        summary: Some(match answer {
            "" => "done, without an answer".to_owned(),
            answer => beginning_of(answer),
        }),
        output,
        artifacts: Body::of(&artifacts).ok().filter(|_| !artifacts.is_empty()),
        completed_at: None,
    });
    match facts.spent.usage() {
        Some(usage) => result.usage(usage),
        None => result,
    }
}

/// A text as JSON, without its middle where it is too long for a result.
fn body_of(text: &str) -> Option<Body> {
    let mut max = LONGEST_ANSWER;
    while !text.is_empty() && max > 0 {
        let body = Body::of(&without_middle(text, max)).ok()?;
        if body.len() + AROUND <= limits::RESULT {
            return Some(body);
        }
        // Odd characters take up to six bytes.
        max /= 2;
    }
    None
}
