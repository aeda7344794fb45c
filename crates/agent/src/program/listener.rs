//! Hears the events of a program: one JSON object on each line. Bounded memory, whatever the length of a line.

use loom_client::Job;
use loom_process::tail::{KEPT, Tail};

use super::Adapter;
use super::facts::Facts;
use super::json::Reader;
use super::session_place::SessionPlace;
use crate::lines::Line;

/// Hears one run.
#[derive(Debug)]
pub struct Listener {
    adapter: &'static dyn Adapter,
    reader: Reader,
    /// The end of the line that is being read.
    line: Tail,
    place: SessionPlace,
    /// The conversation that the job was told of.
    told: Option<String>,
    /// What is known so far.
    pub facts: Facts,
    /// How many events there were.
    pub events: u64,
}

impl Listener {
    /// Hears a run of this program.
    pub fn new(adapter: &'static dyn Adapter, place: SessionPlace) -> Self {
        Self {
            adapter,
            place,
            told: None,
            reader: Reader::default(),
            line: Tail::default(),
            facts: Facts::default(),
            events: 0,
        }
    }

    /// Takes a line or a piece of one, and tells the job what the program does. Gives the text of a line that is no event.
    pub fn take(&mut self, line: &Line<'_>, job: &Job) -> Option<String> {
        self.reader.feed(line.bytes);
        self.line.push(line.bytes);
        if !line.ends {
            return None;
        }
        let text = std::mem::take(&mut self.line);
        match self.reader.end().filter(serde_json::Value::is_object) {
            Some(event) => {
                self.events += 1;
                self.adapter.read(&event, &mut self.facts);
            }
            None => return Some(text.text(KEPT)),
        }
        if let Some(doing) = self.facts.doing.take() {
            job.message(doing);
        }
        if let Some(usage) = self.facts.spent.news() {
            job.usage(usage);
        }
        self.tell_session(job);
        None
    }

    /// Tells the job of the conversation, where it is known and another one than before.
    pub fn tell_session(&mut self, job: &Job) {
        if self.facts.session == self.told {
            return;
        }
        self.told.clone_from(&self.facts.session);
        if let Some(id) = &self.told {
            job.session(self.place.session(id, self.facts.directory.as_deref()));
        }
    }
}
