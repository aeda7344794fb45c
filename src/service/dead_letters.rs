//! Dead letters: looking at them, putting them back, discarding them.

use futures_util::{StreamExt as _, stream};
use loom_actors::dlq_retrier::{LetterError, LetterFilter, LetterInfo, RetryBatch};
use loom_actors::project::Project;
use loom_protocol::dead_letter::{
    DeadLetter, DiscardAnswer, ListDeadLettersRequest, NAMED, RetryAnswer, RetryRequest,
};
use loom_protocol::rest::PageInfo;
use loom_protocol::work::Reason;
use loom_protocol::{WireError, WorkId};

use super::items::start;
use super::named::Among;
use super::{Page, READY_WITHIN, Service, check_scope, page_limit};
use crate::access::Allowed;

/// How many letters of a page are read at a time.
const READS_IN_FLIGHT: usize = 32;
/// How many letters are put back together.
const RETRY_BATCH: usize = 256;

impl Service {
    /// One page of letters without their bodies, in the order in which they were written or the other way
    /// round.
    pub async fn list_dead_letters(
        &self,
        caller: &Allowed,
        request: ListDeadLettersRequest,
    ) -> Result<Page<DeadLetter>, WireError> {
        let project = self.project_of(caller);
        let limit = page_limit(request.limit)?;
        let start = start(request.order.as_deref(), request.cursor.as_deref())?;
        let mut filter = filter(request.capability, request.reason.as_deref())?;
        filter.since = request.since;
        let Some(project) = self.active(project)? else {
            return Ok(Page {
                items: Vec::new(),
                info: PageInfo::default(),
            });
        };
        project.letters.ready(READY_WITHIN).await?;
        let mut page = project.letters.page_from(&filter, start, limit);
        let mut items = read_all(&project, page.letters.clone()).await?;
        let fitting = self.how_many_fit(&items);
        if fitting < items.len() {
            items.truncate(fitting);
            let last = items.last().map(|letter| letter.id);
            let last = page.letters.iter().find(|letter| Some(letter.id) == last);
            page.next = last.map(|letter| letter.sequence);
        }
        Ok(Page {
            info: PageInfo {
                count: items.len(),
                total: page.total,
                has_more: page.next.is_some(),
                next_cursor: page.next.map(|cursor| cursor.to_string()),
                prev_cursor: page.previous.map(|cursor| cursor.to_string()),
            },
            items,
        })
    }

    /// One letter with all there is. Without a project every one is looked in; `id` may be its
    /// beginning or the item's taskId (here and below; see `named`).
    pub async fn get_dead_letter(
        &self,
        caller: &Allowed,
        id: &str,
    ) -> Result<DeadLetter, WireError> {
        let project = caller.project();
        let (project, id) = self.find_letter(project, id, Among::Letters).await?;
        let info = project.letters.info(id).ok_or(LetterError::NotFound(id))?;
        Ok(project.letters.read(&info).await?)
    }

    /// Puts one letter back into the queue, or those that a filter names, or all. Those that are
    /// written meanwhile stay.
    pub async fn retry_dead_letters(
        &self,
        caller: &Allowed,
        request: RetryRequest,
    ) -> Result<RetryAnswer, WireError> {
        let project = caller.project();
        let has_filter = request.capability.is_some() || request.reason.is_some();
        let is_filtered = request.all || has_filter;
        if !request.ids.0.is_empty() {
            return Err(WireError::invalid(
                "ids is a field of POST /api/dlq/retry-batch; here say one id, or capability and reason, or all: true",
            ));
        }
        match (request.id.as_deref(), is_filtered) {
            (Some(id), false) => {
                let (project, id) = self.find_letter(project, id, Among::Items).await?;
                let mut retried = retry(&project, vec![id], request.reset_attempts).await?;
                retried.pop().map_or(Ok(()), |(_, outcome)| outcome)?;
                Ok(RetryAnswer {
                    retried: 1,
                    ids: vec![id],
                    ..RetryAnswer::default()
                })
            }
            (None, true) => {
                check_scope(has_filter, request.all, "capability or reason")?;
                let filter = filter(request.capability, request.reason.as_deref())?;
                let id = project.unwrap_or(self.default_project());
                match self.active(id)? {
                    Some(project) => {
                        retry_page_by_page(&project, &filter, request.reset_attempts).await
                    }
                    None => Ok(RetryAnswer::default()),
                }
            }
            _ => Err(WireError::invalid(
                "say which dead letters: either id, or capability and reason, or all: true",
            )),
        }
    }

    /// Deletes a letter for good. Its item stays failed, and can be read until its time is over.
    pub async fn discard_dead_letter(
        &self,
        caller: &Allowed,
        id: &str,
    ) -> Result<DiscardAnswer, WireError> {
        let project = caller.project();
        let (project, id) = self.find_letter(project, id, Among::Items).await?;
        project.dlq.discard(id).await?;
        Ok(DiscardAnswer {
            id,
            discarded: true,
        })
    }
}

async fn retry(
    project: &Project,
    ids: Vec<WorkId>,
    reset_attempts: bool,
) -> Result<Vec<(WorkId, Result<(), WireError>)>, WireError> {
    let order = RetryBatch {
        ids,
        reset_attempts,
        automatic: false,
    };
    project.dlq.retry(order).await
}

async fn retry_page_by_page(
    project: &Project,
    filter: &LetterFilter,
    reset_attempts: bool,
) -> Result<RetryAnswer, WireError> {
    project.letters.ready(READY_WITHIN).await?;
    let last = project.letters.last();
    let (mut answer, mut after) = (RetryAnswer::default(), 0);
    loop {
        let page = project.letters.page(filter, after, RETRY_BATCH);
        let letters = page.letters.iter();
        let ids = letters
            .filter(|letter| letter.sequence <= last)
            .map(|letter| letter.id)
            .collect();
        for (id, outcome) in retry(project, ids, reset_attempts).await? {
            match outcome {
                Ok(()) => {
                    answer.retried += 1;
                    if answer.ids.len() < NAMED {
                        answer.ids.push(id);
                    }
                }
                Err(error) => {
                    answer.failed += 1;
                    if answer.errors.len() < NAMED {
                        answer.errors.insert(id, error.message);
                    }
                }
            }
        }
        match page.next {
            Some(next) if next < last => after = next,
            _ => return Ok(answer),
        }
    }
}

/// Reads the letters of a page; one that has gone meanwhile is left out.
async fn read_all(
    project: &Project,
    letters: Vec<LetterInfo>,
) -> Result<Vec<DeadLetter>, WireError> {
    let mut reads = stream::iter(letters)
        .map(|info| async move { project.letters.read(&info).await })
        .buffered(READS_IN_FLIGHT);
    let mut letters = Vec::new();
    while let Some(read) = reads.next().await {
        match read {
            Ok(mut letter) => {
                letter.work_item.context_data = None;
                letter.submission = None;
                letters.push(letter);
            }
            Err(LetterError::NotFound(_)) => {}
            Err(error @ LetterError::Damaged { .. }) => tracing::warn!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(letters)
}

fn filter(capability: Option<String>, reason: Option<&str>) -> Result<LetterFilter, WireError> {
    let reason = reason
        .map(|name| {
            Reason::parse(name).ok_or_else(|| {
                let known = Reason::ALL.map(Reason::as_str).join(", ");
                let shown: String = name.chars().take(32).collect();
                WireError::invalid(format!("reason {shown:?} is none of {known}"))
            })
        })
        .transpose()?;
    Ok(LetterFilter {
        capability,
        reason,
        since: None,
    })
}
