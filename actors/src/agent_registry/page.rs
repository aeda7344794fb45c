//! What a listing is asked and answers.

use std::ops::Bound;

use loom_protocol::agent::{Agent, AgentStatus, ListAgentsRequest};
use loom_protocol::rest::PageInfo;
use loom_protocol::{Timestamp, WireError};

use super::index::{Direction, Place, Selection};

/// Which agents a listing is about; each field that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFilter {
    /// Only of this type.
    pub agent_type: Option<String>,
    /// Only of this status.
    pub status: Option<AgentStatus>,
    /// Only with this capability.
    pub capability: Option<String>,
    /// Only in this boundary.
    pub boundary: Option<String>,
}

impl AgentFilter {
    /// The filter of a request. A status that does not exist is refused.
    pub fn of(request: &ListAgentsRequest) -> Result<Self, WireError> {
        let status = request.status.as_deref().map(|text| {
            AgentStatus::parse(text).ok_or_else(|| {
                let known = AgentStatus::ALL.map(AgentStatus::as_str).join(", ");
                let shown: String = text.chars().take(64).collect();
                WireError::invalid(format!("status {shown:?} is none of {known}"))
            })
        });
        Ok(Self {
            agent_type: request.agent_type.clone(),
            status: status.transpose()?,
            capability: request.capability.clone(),
            boundary: request.boundary.clone(),
        })
    }
}

/// One page of agents.
#[derive(Debug, Clone)]
pub struct AgentsFound {
    /// The agents, by registration and then by guid.
    pub agents: Vec<Agent>,
    /// Where the page stands. `total` is exact for at most one filter and for a listing that fits
    /// on one page; else it says how many there are at the most.
    pub info: PageInfo,
    /// How many entries of the indexes were looked at.
    pub examined: usize,
}

/// The places of one page, in order.
pub(super) fn places_of_page(
    selection: &mut Selection<'_>,
    cursor: Option<Cursor>,
    limit: usize,
) -> Vec<Place> {
    match cursor {
        Some(Cursor::After(place)) => {
            selection.take(Direction::Forward, Bound::Excluded(place), limit)
        }
        Some(Cursor::Before(place)) => {
            let mut places = selection.take(Direction::Backward, Bound::Excluded(place), limit);
            places.reverse();
            places
        }
        None => selection.take(Direction::Forward, Bound::Unbounded, limit),
    }
}

/// Where a page begins or ends. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    After(Place),
    Before(Place),
}

impl Cursor {
    pub(super) fn write(self) -> String {
        let (letter, place) = match self {
            Self::After(place) => ('a', place),
            Self::Before(place) => ('b', place),
        };
        format!("{letter}{}.{}", place.registered_at.as_millis(), place.guid)
    }

    pub(super) fn read(text: &str) -> Result<Self, WireError> {
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            WireError::invalid(format!(
                "cursor {shown:?} is none of ours; take nextCursor or prevCursor of a page, or leave it out"
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (millis, guid) = text.get(1..)?.split_once('.')?;
        let place = Place {
            registered_at: Timestamp::from_millis(millis.parse().ok()?),
            guid: guid.parse().ok()?,
        };
        match text.as_bytes().first()? {
            b'a' => Some(Self::After(place)),
            b'b' => Some(Self::Before(place)),
            _ => None,
        }
    }
}
