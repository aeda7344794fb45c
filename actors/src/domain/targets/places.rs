//! Where somebody may be missing: the capabilities and boundaries that something has happened to which more agents may be
//! started for. What waits elsewhere need not be looked at.

use std::collections::HashSet;
use std::sync::Arc;

/// Of more than so many places everything is looked at.
const MOST: usize = 1_024;

/// A capability, and the boundary; `None`: every boundary.
type Place = (Arc<str>, Option<Arc<str>>);

/// Places to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    is_everywhere: bool,
    named: HashSet<Place>,
}

impl Places {
    /// Everything is to be looked at.
    pub fn everywhere() -> Self {
        Self {
            is_everywhere: true,
            named: HashSet::new(),
        }
    }

    /// One place more.
    pub fn add(&mut self, capability: &Arc<str>, boundary: Option<&Arc<str>>) {
        if self.is_everywhere {
            return;
        }
        self.named.insert((capability.clone(), boundary.cloned()));
        if self.named.len() > MOST {
            *self = Self::everywhere();
        }
    }

    /// Each of these capabilities in each of these boundaries; in every one where none is named.
    pub fn add_product(&mut self, capabilities: &[String], boundaries: &[String]) {
        let shared = |name: &String| -> Arc<str> { name.as_str().into() };
        let boundaries: Vec<Arc<str>> = boundaries.iter().map(shared).collect();
        for capability in capabilities.iter().map(shared) {
            if boundaries.is_empty() {
                self.add(&capability, None);
            }
            for boundary in &boundaries {
                self.add(&capability, Some(boundary));
            }
        }
    }

    /// These too.
    pub fn merge(&mut self, other: Self) {
        if other.is_everywhere {
            *self = other;
        } else {
            self.extend(other.named);
        }
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        !self.is_everywhere && self.named.is_empty()
    }

    /// What is named; `None`: everything is to be looked at. A place is left out that lies in another one.
    pub fn named(&self) -> Option<impl Iterator<Item = (&Arc<str>, Option<&Arc<str>>)>> {
        let is_apart =
            |place: &&Place| place.1.is_none() || !self.named.contains(&(place.0.clone(), None));
        let named = self.named.iter().filter(is_apart);
        let named = named.map(|(capability, boundary)| (capability, boundary.as_ref()));
        (!self.is_everywhere).then_some(named)
    }
}

impl Extend<Place> for Places {
    fn extend<I: IntoIterator<Item = Place>>(&mut self, places: I) {
        for (capability, boundary) in places {
            self.add(&capability, boundary.as_ref());
        }
    }
}
