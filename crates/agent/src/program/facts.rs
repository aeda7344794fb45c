//! What the events of a program say. Pure.

use std::collections::VecDeque;

use loom_protocol::Timestamp;
use loom_protocol::work::{CostSource, Usage};
use serde_json::Value;

use crate::limit_met::{Class, LimitMet};

/// How many messages are remembered, to count the usage of each once.
const MESSAGES: usize = 256;
/// How many denied tools are named.
const DENIED: usize = 16;
/// The longest text of an answer that is kept, in bytes: its end counts.
pub const LONGEST_ANSWER: usize = 128 * 1024;

/// What is known of a run, from its events.
#[derive(Debug, Default)]
pub struct Facts {
    /// How it ended, by its own word.
    pub result: Option<ResultEvent>,
    /// What it says in the end, or has said last.
    pub answer: Option<String>,
    /// Whether an answer that comes in parts is whole, so that the next part begins another one.
    pub answer_is_over: bool,
    /// The same in a form that was asked for.
    pub structured: Option<Value>,
    /// The conversation.
    pub session: Option<String>,
    /// The directory that it works in.
    pub directory: Option<String>,
    /// What it has used up.
    pub spent: Spent,
    /// The tools that it was denied, each once.
    pub denied: Vec<String>,
    /// What an event says of a limit that is met.
    pub limit: Option<LimitMet>,
    /// The last trouble that an event tells of. It may be over since.
    pub trouble: Option<String>,
    /// What it does, in a line for people; taken by whoever tells it.
    pub doing: Option<String>,
    /// The names of tools that are under way, by the ids of their calls.
    calls: VecDeque<(String, String)>,
}

/// How a program says that it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultEvent {
    /// It has done what it was asked.
    Good,
    /// It has not.
    Bad {
        /// A word for it.
        code: String,
        /// A sentence.
        message: String,
    },
}

impl Facts {
    /// It has failed, by its own word.
    pub fn fail(&mut self, code: &str, message: impl Into<String>) {
        self.result = Some(ResultEvent::Bad {
            code: code.into(),
            message: message.into(),
        });
    }

    /// A tool was denied.
    pub fn deny(&mut self, tool: &str) {
        if self.denied.len() < DENIED && !self.denied.iter().any(|known| known == tool) {
            self.denied.push(tool.chars().take(100).collect());
        }
    }

    /// An event says that a limit is met.
    pub fn meet_limit(&mut self, said: impl Into<String>, until: Option<Timestamp>) {
        self.limit = Some(LimitMet {
            class: Class::Limit,
            until,
            said: said.into(),
        });
    }

    /// A tool is called.
    pub fn call(&mut self, id: Option<&str>, tool: &str) {
        if let Some(id) = id {
            self.calls.push_back((id.to_owned(), tool.to_owned()));
            if self.calls.len() > MESSAGES {
                self.calls.pop_front();
            }
        }
    }

    /// The name of the tool of a call that is over.
    pub fn called(&mut self, id: Option<&str>) -> Option<String> {
        let at = self
            .calls
            .iter()
            .position(|(known, _)| Some(known.as_str()) == id)?;
        self.calls.remove(at).map(|(_, tool)| tool)
    }

    /// More of an answer that comes in parts.
    pub fn add_to_answer(&mut self, more: &str) {
        let answer = self.answer.get_or_insert_default();
        answer.push_str(more);
        if answer.len() > 2 * LONGEST_ANSWER {
            answer.drain(..answer.ceil_char_boundary(answer.len() - LONGEST_ANSWER));
        }
    }
}

/// Tokens of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// What it was given, without what it had in its cache.
    pub input: u64,
    /// What it wrote.
    pub output: u64,
    /// What it had in its cache.
    pub cache_read: u64,
    /// What it put into its cache.
    pub cache_write: u64,
}

impl Tokens {
    /// All of them.
    pub const fn sum(self) -> u64 {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            input: with(self.input, other.input),
            output: with(self.output, other.output),
            cache_read: with(self.cache_read, other.cache_read),
            cache_write: with(self.cache_write, other.cache_write),
        }
    }
}

/// What a run has used up.
#[derive(Debug, Default)]
pub struct Spent {
    tokens: Tokens,
    cost_usd: Option<f64>,
    model: Option<String>,
    /// What the last messages used, by their ids.
    messages: VecDeque<(String, Tokens)>,
    has_news: bool,
}

impl Spent {
    /// What a message used: each counts once, however often it is told, with the most that was told of it.
    pub fn message(&mut self, id: Option<&str>, used: Tokens) {
        let id = id.unwrap_or_default();
        let known = self
            .messages
            .iter_mut()
            .find(|(known, _)| !id.is_empty() && known == id);
        let more = if let Some((_, before)) = known {
            let now = before.each(used, u64::max);
            now.each(std::mem::replace(before, now), u64::saturating_sub)
        } else {
            self.messages.push_back((id.to_owned(), used));
            if self.messages.len() > MESSAGES {
                self.messages.pop_front();
            }
            used
        };
        self.has_news |= more.sum() > 0;
        self.tokens = self.tokens.each(more, u64::saturating_add);
    }

    /// What all of it used, as it is told in the end; what was told of messages before is part of it.
    pub fn total(&mut self, used: Tokens, cost_usd: Option<f64>) {
        if used.sum() > self.tokens.sum() {
            self.tokens = used;
        }
        let cost_usd = cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0);
        self.cost_usd = cost_usd.or(self.cost_usd);
        self.has_news = true;
    }

    /// Which model uses it.
    pub fn by_model(&mut self, name: Option<&str>) {
        self.model = name.map(str::to_owned).or(self.model.take());
    }

    /// All of it; `None` where nothing is known.
    pub fn usage(&self) -> Option<Usage> {
        let tokens = Some(self.tokens.sum()).filter(|tokens| *tokens > 0);
        let part = |count: u64| tokens.map(|_| count);
        let usage = Usage {
            input_tokens: part(self.tokens.input),
            output_tokens: part(self.tokens.output),
            cache_read_tokens: part(self.tokens.cache_read),
            cache_write_tokens: part(self.tokens.cache_write),
            tokens,
            cost_usd: self.cost_usd,
            cost_source: self.cost_usd.map(|_| CostSource::Reported),
            model: self.model.clone(),
        };
        (tokens.is_some() || self.cost_usd.is_some()).then_some(usage)
    }

    /// The same, where it is more than when it was asked last.
    pub fn news(&mut self) -> Option<Usage> {
        std::mem::take(&mut self.has_news).then(|| self.usage())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens {
            input,
            output,
            ..Tokens::default()
        }
    }

    #[test]
    fn each_message_counts_once_with_the_most_that_was_told() {
        let mut spent = Spent::default();
        assert!(spent.usage().is_none() && spent.news().is_none());
        spent.message(Some("a"), tokens(100, 1));
        spent.message(Some("b"), tokens(50, 5));
        spent.message(Some("a"), tokens(100, 30));
        spent.message(Some("a"), tokens(100, 30));
        assert_eq!(spent.news().unwrap().tokens, Some(185));
        spent.message(Some("b"), tokens(50, 5));
        assert!(spent.news().is_none(), "nothing new");
        spent.total(tokens(100, 10), Some(0.25));
        let usage = spent.usage().unwrap();
        assert_eq!((usage.tokens, usage.cost_usd), (Some(185), Some(0.25)));
        spent.total(tokens(200, 10), Some(f64::NAN));
        assert_eq!(spent.usage().unwrap().tokens, Some(210));
        assert_eq!(spent.usage().unwrap().cost_usd, Some(0.25));
    }

    #[test]
    fn an_answer_in_parts_stays_bounded_and_keeps_its_end() {
        let mut facts = Facts::default();
        for _ in 0..100 {
            facts.add_to_answer(&"ü".repeat(5_000));
        }
        facts.add_to_answer("the end");
        let answer = facts.answer.unwrap();
        assert!(answer.len() <= 2 * LONGEST_ANSWER && answer.ends_with("üthe end"));
    }
}
