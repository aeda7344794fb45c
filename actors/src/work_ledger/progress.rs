//! What an agent reports about its progress: kept in memory, and written only now and then.

use std::sync::Arc;
use std::time::Duration;

use loom_protocol::work::WorkStatus;

use super::ledger_error::LedgerError;
use super::live_progress::LiveProgress;
use super::operation::{Applied, Operation};
use super::write_context::{Present, WriteContext};
use crate::domain::work::{Command, WorkRecord, within_attempt};

/// How long what an agent reports about its progress may stay unwritten.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

impl WriteContext {
    /// Progress of a running item is kept in memory, and written only now and then.
    pub fn without_a_write(
        &self,
        operation: &Operation,
        present: &Present,
    ) -> Result<Option<Applied>, LedgerError> {
        let (Operation::Apply(id, command), Some(record)) = (operation, &present.record) else {
            return Ok(None);
        };
        let Command::Progress {
            by,
            progress,
            message,
            report,
        } = &**command
        else {
            return Ok(None);
        };
        let now = self.clock.now();
        record.check_lease(by)?;
        let known = self.read.live().get(*id, record.attempt);
        let persisted_at = known
            .as_ref()
            .map_or(record.updated_at, |live| live.persisted_at);
        let is_news = progress.is_some() || message.is_some() || !report.is_empty();
        // Whoever goes on with the item after a crash of ours needs the conversation.
        let is_another = report.session.is_some() && report.session != record.session;
        let is_due = is_another || is_news && now.since(persisted_at) >= PROGRESS_EVERY;
        if record.status != WorkStatus::InProgress || is_due {
            return Ok(None);
        }
        let known = known.unwrap_or_default();
        Ok(Some(Applied {
            record: record.clone(),
            revision: present.revision,
            before: Some(record.status),
            changed: false,
            overruled: None,
            progress: Some(LiveProgress {
                attempt: record.attempt,
                progress: progress.or(known.progress),
                message: message.clone().or(known.message),
                usage: within_attempt(known.usage, report.usage.clone()),
                session: report.session.clone().or(known.session),
                at: now,
                persisted_at,
            }),
        }))
    }

    /// What is to be kept of progress that was written down: from now on it is this that is shown.
    pub fn written_progress(
        &self,
        operation: &Operation,
        next: &WorkRecord,
    ) -> Option<LiveProgress> {
        let Operation::Apply(id, command) = operation else {
            return None;
        };
        let Command::Progress {
            progress, message, ..
        } = &**command
        else {
            return None;
        };
        let known = self.read.live().get(*id, next.attempt);
        let known = known.unwrap_or_default();
        Some(LiveProgress {
            attempt: next.attempt,
            progress: progress.or(known.progress).or(next.progress),
            message: message
                .clone()
                .or(known.message)
                .or_else(|| next.progress_message.clone()),
            usage: within_attempt(known.usage, next.usage.clone()),
            session: next.session.clone(),
            at: next.updated_at,
            persisted_at: next.updated_at,
        })
    }

    /// The record with what its agent has reported since it was written, so that the next write keeps it.
    pub fn with_live_progress(&self, record: &Arc<WorkRecord>) -> Arc<WorkRecord> {
        let is_leased = record.status.is_leased();
        let live = self.read.live().get(record.id, record.attempt);
        let Some(live) = live.filter(|_| is_leased) else {
            return record.clone();
        };
        let mut record = (**record).clone();
        record.progress = live.progress.or(record.progress);
        record.progress_message = live.message.or(record.progress_message);
        record.usage = within_attempt(record.usage.take(), live.usage);
        record.session = live.session.or_else(|| record.session.take());
        record.into()
    }
}
