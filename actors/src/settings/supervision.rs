//! `[supervision]`: what holds for every actor, and what one of them, or the tree of a whole project, has otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use loom_supervision::RestartPolicy;
use serde::{Deserialize, Serialize};

use super::setting::{Field, Kind, Scalar, Section, Setting, Shape, Value, at_least_ms, split};
use crate::actor_name::ActorName;
use crate::section;

/// What `strategy` may say. It has no effect any more: the one that crashed is restarted, whatever it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Only the one that crashed.
    #[default]
    OneForOne,
    /// Formerly also those that were started after it.
    RestForOne,
}

impl Scalar for Strategy {
    const KIND: Kind = Kind::OneOf(&["one-for-one", "rest-for-one"]);
}

/// Makes of the same lines the section for every actor, and the one in which each key is optional.
macro_rules! restart_settings {
    ($(
        $(#[doc = $sentence:literal])+
        $name:ident: $type:ty $([$kind:expr])? = $default:expr;
    )+) => {
        section! {
            /// The keys of `[supervision]`: when and how fast what crashed is restarted.
            pub struct RestartSettings {
                $($(#[doc = $sentence])+ $name: $type $([$kind])? = $default;)+
            }
        }

        section! {
            /// What one actor, or a project's tree, has otherwise than `[supervision]` says.
            pub struct RestartOverride {
                $($(#[doc = $sentence])+ $name: Option<$type> $([$kind])?;)+
            }
        }

        impl RestartOverride {
            /// The general settings, where this says nothing else.
            pub fn over(&self, general: &RestartSettings) -> RestartSettings {
                RestartSettings { $($name: self.$name.unwrap_or(general.$name),)+ }
            }
        }
    };
}

restart_settings! {
    /// Without effect: the one that crashed is restarted and nobody else. The key goes in the next release.
    strategy: Strategy = Strategy::OneForOne;
    /// How many restarts are allowed within the window; the next one restarts the project's tree.
    max_restarts: u32 = RestartPolicy::default().max_restarts;
    /// The window.
    within: Duration [at_least_ms(1)] = RestartPolicy::default().within;
    /// The pause before the first restart; doubles with each in the window.
    backoff_first: Duration = RestartPolicy::default().backoff_first;
    /// The longest pause before a restart.
    backoff_max: Duration = RestartPolicy::default().backoff_max;
    /// How long an actor may take to start; what it reads from NATS after that is not counted.
    start_timeout: Duration [at_least_ms(10)] = RestartPolicy::default().start_timeout;
}

impl RestartOverride {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RestartSettings {
    /// The policy that these settings stand for.
    pub const fn policy(&self) -> RestartPolicy {
        RestartPolicy {
            max_restarts: self.max_restarts,
            within: self.within,
            backoff_first: self.backoff_first,
            backoff_max: self.backoff_max,
            start_timeout: self.start_timeout,
        }
    }
}

/// `[supervision]`
///
/// `[supervision.<actor>]` and `[supervision.project]` have the same keys, each optional. A key that they do not set has
/// the default of that section, or else what `[supervision]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisionSettings {
    /// What holds for whatever has nothing of its own.
    pub general: RestartSettings,
    /// What one actor has otherwise; none by default.
    pub actors: BTreeMap<ActorName, RestartOverride>,
    /// What the tree of a whole project has otherwise; by default 3 restarts within 10 minutes.
    pub project: RestartOverride,
}

impl Default for SupervisionSettings {
    fn default() -> Self {
        Self {
            general: RestartSettings::default(),
            actors: BTreeMap::new(),
            // An actor that never starts needs about 20 s to exhaust its own restarts; a window of a minute would
            // forget each such round before the next, and the project would never be parked.
            project: RestartOverride {
                max_restarts: Some(3),
                within: Some(Duration::from_mins(10)),
                ..RestartOverride::default()
            },
        }
    }
}

impl SupervisionSettings {
    /// What holds for an actor.
    pub fn policy(&self, actor: ActorName) -> RestartPolicy {
        let own = self.actors.get(&actor).map(|own| own.over(&self.general));
        own.as_ref().unwrap_or(&self.general).policy()
    }

    /// What holds for the tree of a whole project.
    pub fn project_policy(&self) -> RestartPolicy {
        self.project.over(&self.general).policy()
    }

    /// The sections that say something of their own, by the name that they have below `[supervision]`.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, &RestartOverride)> {
        let actors = self.actors.iter().map(|(actor, own)| (actor.key(), own));
        let sections = actors.chain([(PROJECT, &self.project)]);
        sections.filter(|(_, own)| !own.is_empty())
    }
}

/// The name of the section for a project's tree.
const PROJECT: &str = "project";

/// A section for each actor, and the one for a project's tree.
const OWN: [Field; ActorName::ALL.len() + 1] = {
    let section = Field {
        name: PROJECT,
        sentence: "",
        shape: RestartOverride::SHAPE,
        example: None,
    };
    let mut sections = [section; ActorName::ALL.len() + 1];
    let mut at = 0;
    while at < ActorName::ALL.len() {
        sections[at].name = ActorName::ALL[at].key();
        at += 1;
    }
    sections
};

impl Setting for SupervisionSettings {
    const SHAPE: Shape = Shape::Section(Section {
        fields: RestartSettings::SHAPE.fields(),
        own: &OWN,
    });

    fn set(&mut self, path: &str, value: Value) -> Result<(), String> {
        let (name, rest) = split(path);
        match ActorName::of_key(name) {
            Some(actor) => self.actors.entry(actor).or_default().set(rest, value),
            None if name == PROJECT => self.project.set(rest, value),
            None => self.general.set(path, value),
        }
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (name, rest) = split(path);
        if name.is_empty() {
            let mut all = self.general.get("")?;
            for (name, own) in self.own() {
                all.as_table_mut()?.insert(name.into(), own.get("")?);
            }
            return Some(all);
        }
        match ActorName::of_key(name) {
            Some(actor) => self.actors.get(&actor)?.get(rest),
            None if name == PROJECT => self.project.get(rest),
            None => self.general.get(path),
        }
    }
}

#[cfg(test)]
#[path = "supervision_tests.rs"]
mod tests;
