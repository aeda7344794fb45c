//! What the index knows after many writes is what it would know had it been told the last write of each item only.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::work::{Holder, LeaseRecord};

/// One write of one item.
#[derive(Debug, Clone)]
struct Written {
    item: u8,
    status: WorkStatus,
    agent: u8,
    attempt: u32,
    has_letter: bool,
    capability: bool,
    /// Whether the item was created anew under the same id, after the former one had expired.
    is_new: bool,
}

fn written() -> impl Strategy<Value = Written> {
    let status = prop::sample::select(&WorkStatus::ALL[..]);
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    );
    (0..4u8, status, 0..3u8, 0..3u32, flags).prop_map(
        |(item, status, agent, attempt, (has_letter, capability, is_new))| Written {
            item,
            status,
            agent,
            attempt,
            has_letter,
            capability,
            is_new,
        },
    )
}

fn guid(agent: u8) -> AgentGuid {
    AgentGuid::new(Uuid::from_u128(u128::from(agent) + 1))
}

fn record(written: &Written, created: u64, revision: u64) -> WorkRecord {
    let id = WorkId::new(Uuid::from_u128(u128::from(written.item) + 1));
    let now = Timestamp::from_millis(i64::try_from(revision).unwrap());
    let labels = [("at".to_owned(), created.to_string())].into();
    let mut record = WorkRecord::blank(id, "test", now, labels);
    record.task_id = format!("task {created}");
    record.created = if created == revision { 0 } else { created };
    record.capability = if written.capability { "rust" } else { "go" }.into();
    record.status = written.status;
    record.attempt = written.attempt;
    record.dead_letter = written.has_letter.then_some(7);
    let is_held = written.status.is_leased() || written.status == WorkStatus::Cancelled;
    record.lease = is_held.then(|| LeaseRecord {
        holder: Holder {
            guid: guid(written.agent),
            handle: "a".into(),
            agent_type: "t".into(),
            hostname: None,
        },
        claim_id: None,
        assigned_at: now,
    });
    record
}

/// All that can be seen of an index.
fn seen(index: &mut Index) -> impl PartialEq + std::fmt::Debug + use<> {
    let all: Vec<String> = index.all().map(|header| format!("{header:?}")).collect();
    let needs: BTreeMap<_, _> = index
        .pending
        .all()
        .map(|(needs, count)| (needs.clone(), count))
        .collect();
    let leases: BTreeSet<_> = index
        .leases()
        .map(|lease| (lease.id, lease.attempt, lease.started, lease.assigned_at))
        .collect();
    let by_agent: BTreeMap<_, _> = index.lease_counts().collect();
    let without_letter: Vec<_> = index.without_letter(0).map(|header| header.id).collect();
    let finished: Vec<_> = index
        .to_forget(0, Timestamp::default(), 99)
        .iter()
        .map(|header| header.id)
        .collect();
    let stopping: BTreeSet<_> = index
        .stopping(Timestamp::default())
        .iter()
        .map(|(guid, lease)| (*guid, lease.id, lease.attempt))
        .collect();
    let known_needs: BTreeMap<_, _> = index
        .needs
        .iter()
        .map(|(needs, count)| (needs.clone(), *count))
        .collect();
    let lists = (without_letter, finished, stopping);
    (
        all,
        needs,
        known_needs,
        leases,
        by_agent,
        lists,
        index.ids.len(),
        index.counts(),
    )
}

proptest! {
    #[test]
    fn only_the_last_write_of_each_item_counts(
        writes in prop::collection::vec(written(), 0..40),
        removed in prop::collection::vec(any::<bool>(), 4),
    ) {
        let now = Instant::now();
        let mut index = Index::default();
        let mut last = BTreeMap::new();
        let mut created = BTreeMap::new();
        for (revision, written) in (1..).zip(&writes) {
            let created = created.entry(written.item).or_insert(revision);
            if written.is_new {
                *created = revision;
            }
            let record = record(written, *created, revision);
            let before = index.get(record.id).cloned();
            let change = index.apply(&record, revision, now).unwrap();
            prop_assert!(index.apply(&record, revision, now).is_none(), "known already");
            let ended = before.filter(|before| before.status.is_leased()).filter(|before| {
                !record.status.is_leased() || before.attempt != record.attempt
            });
            prop_assert_eq!(change.freed, ended.and_then(|before| before.holder));
            last.insert(written.item, (record, revision));
        }
        let mut anew = Index::default();
        for (record, revision) in last.values() {
            anew.apply(record, *revision, now);
        }
        prop_assert_eq!(seen(&mut index), seen(&mut anew));
        for (item, (record, _)) in &last {
            if removed[usize::from(*item)] {
                index.remove(record.id);
                anew.remove(record.id);
            }
        }
        prop_assert_eq!(seen(&mut index), seen(&mut anew));
    }
}
