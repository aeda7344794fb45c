//! Lists of targets: in the order of their registration, page by page.

use loom_protocol::WireError;
use loom_protocol::rest::PageInfo;
use loom_protocol::target::{ListTargetsRequest, Target};

use super::paging::Listing;

const TARGETS: Listing = Listing {
    letters: ('a', 'b'),
    is_latest_first: false,
};

/// One page of targets.
#[derive(Debug, Clone)]
pub struct TargetsFound {
    /// The targets, by registration and then by id.
    pub targets: Vec<Target>,
    /// Where the page stands.
    pub info: PageInfo,
}

/// The page that a request asks for, of all targets.
pub(super) fn page_of<'a>(
    all: impl Iterator<Item = &'a Target>,
    request: &ListTargetsRequest,
    limit: usize,
) -> Result<TargetsFound, WireError> {
    let matching = all.filter(|target| request.matches(target));
    let placed = matching.map(|target| ((target.registered_at, target.id), target));
    let (page, info) = TARGETS.page(placed, request.cursor.as_deref(), limit)?;
    Ok(TargetsFound {
        targets: page.into_iter().cloned().collect(),
        info,
    })
}
