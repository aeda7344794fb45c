//! Lists of targets: in the order of their registration, page by page.

use loom_protocol::rest::PageInfo;
use loom_protocol::target::{ListTargetsRequest, Target};
use loom_protocol::{TargetId, Timestamp, WireError};

/// One page of targets.
#[derive(Debug, Clone)]
pub struct TargetsFound {
    /// The targets, by registration and then by id.
    pub targets: Vec<Target>,
    /// Where the page stands.
    pub info: PageInfo,
}

/// Where a target stands in the order.
type Place = (Timestamp, TargetId);

/// Where a page begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    After(Place),
    Before(Place),
}

impl Cursor {
    fn write(self) -> String {
        let (letter, (time, id)) = match self {
            Self::After(place) => ('a', place),
            Self::Before(place) => ('b', place),
        };
        format!("{letter}{}.{id}", time.as_millis())
    }

    fn read(text: &str) -> Result<Self, WireError> {
        Self::parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            WireError::invalid(format!(
                "cursor {shown:?} is none of ours; take nextCursor or prevCursor of a page, or leave it out"
            ))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (millis, id) = text.get(1..)?.split_once('.')?;
        let place = (
            Timestamp::from_millis(millis.parse().ok()?),
            id.parse().ok()?,
        );
        match text.as_bytes().first()? {
            b'a' => Some(Self::After(place)),
            b'b' => Some(Self::Before(place)),
            _ => None,
        }
    }
}

fn place(target: &Target) -> Place {
    (target.registered_at, target.id)
}

/// The page that a request asks for, of all targets.
pub(super) fn page_of<'a>(
    all: impl Iterator<Item = &'a Target>,
    request: &ListTargetsRequest,
    limit: usize,
) -> Result<TargetsFound, WireError> {
    let cursor = request.cursor.as_deref().map(Cursor::read).transpose()?;
    let mut found: Vec<&Target> = all.filter(|target| request.matches(target)).collect();
    found.sort_by_key(|target| place(target));
    let total = found.len();
    let (from, to) = match cursor {
        None => (0, limit.min(total)),
        Some(Cursor::After(last)) => {
            let from = found.partition_point(|target| place(target) <= last);
            (from, (from + limit).min(total))
        }
        Some(Cursor::Before(first)) => {
            let to = found.partition_point(|target| place(target) < first);
            (to.saturating_sub(limit), to)
        }
    };
    let page = &found[from..to];
    let at = |target: Option<&&Target>, cursor: fn(Place) -> Cursor| {
        target.map(|target| cursor(place(target)).write())
    };
    let has_more = to < total;
    Ok(TargetsFound {
        info: PageInfo {
            count: page.len(),
            total,
            has_more,
            next_cursor: has_more.then(|| at(page.last(), Cursor::After)).flatten(),
            prev_cursor: (from > 0)
                .then(|| at(page.first(), Cursor::Before))
                .flatten(),
        },
        targets: page.iter().map(|target| (*target).clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use loom_protocol::target::RegisterTarget;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn target(name: &str, at: i64) -> Target {
        let request: RegisterTarget = serde_json::from_value(json!({
            "name": name, "agentType": "t", "capabilities": ["c"], "mechanism": "local", "command": "run",
        }))
        .unwrap();
        let new = request.check().unwrap();
        new.into_target(
            TargetId::generate(),
            "a test".into(),
            Timestamp::from_millis(at),
        )
    }

    proptest! {
        #[test]
        fn the_pages_together_are_the_whole_list_in_both_directions(
            times in proptest::collection::vec(0_i64..5, 0..20), limit in 1_usize..8,
        ) {
            let targets: Vec<Target> =
                times.iter().enumerate().map(|(n, at)| target(&format!("t{n}"), *at)).collect();
            let page = |cursor: Option<String>| {
                let request = ListTargetsRequest { cursor, ..ListTargetsRequest::default() };
                page_of(targets.iter(), &request, limit).unwrap()
            };
            let mut all: Vec<&Target> = targets.iter().collect();
            all.sort_by_key(|target| place(target));
            let all: Vec<TargetId> = all.iter().map(|target| target.id).collect();
            let (mut seen, mut pages) = (Vec::new(), vec![page(None)]);
            loop {
                let last = pages.last().unwrap();
                prop_assert_eq!(last.info.total, all.len());
                prop_assert_eq!(last.info.has_more, last.info.next_cursor.is_some());
                seen.extend(last.targets.iter().map(|target| target.id));
                let Some(next) = last.info.next_cursor.clone() else { break };
                pages.push(page(Some(next)));
            }
            prop_assert_eq!(&seen, &all);
            for pair in pages.windows(2) {
                let back = page(pair[1].info.prev_cursor.clone());
                prop_assert_eq!(back.targets, pair[0].targets.clone());
            }
        }
    }

    #[test]
    fn a_cursor_that_is_none_is_refused() {
        for bad in [
            "",
            "x",
            "a1",
            "c1.01890a5d-ac96-474b-bcce-b302099a8057",
            "ü",
        ] {
            assert!(Cursor::read(bad).is_err(), "{bad}");
        }
    }
}
