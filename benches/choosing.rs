//! What it costs to choose who is started, with few targets and needs and with many: the indexes that a look of the
//! TargetManager and the forecast of a submit ask, without the network.
//!
//! `cargo bench --bench choosing` runs it. `docs/performance.md` says what came of it.
#![allow(missing_docs, reason = "criterion makes the items")]
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot be made should say where"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use loom_actors::agent_registry::AgentDirectory;
use loom_actors::domain::matching::Requirements;
use loom_actors::domain::targets::{
    Birth, Need, Places, Roster, TargetRecord, TicketTerms, missing,
};
use loom_actors::domain::work::{Defaults, accept};
use loom_actors::work_ledger::{Header, PendingNeeds};
use loom_protocol::target::{RegisterTarget, SpinUpOperation, SpinUpStatus};
use loom_protocol::work::SubmitRequest;
use loom_protocol::{SpinUpId, TargetId, Timestamp};

/// So many targets, and so many needs with an item each.
const SIZES: [(usize, usize); 2] = [(10, 10), (200, 5_000)];

fn now() -> Timestamp {
    Timestamp::from_millis(1_750_000_000_000)
}

/// Targets of every boundary, two for each capability, that each are starting an agent for some other need; and needs of
/// these capabilities, in as many boundaries as it takes.
struct Project {
    roster: Roster<TargetId>,
    pending: PendingNeeds,
    agents: Arc<AgentDirectory>,
    headers: Vec<Header>,
}

impl Project {
    fn new((targets, needs): (usize, usize)) -> Self {
        let capabilities = targets / 2;
        let mut roster = Roster::default();
        for at in 0..targets {
            let record = target(at % capabilities);
            roster.replace(&record.target.id, None, Some(&record));
        }
        roster.take_touched();
        let headers: Vec<Header> = (0..needs)
            .map(|at| header(at, at % capabilities, at / capabilities))
            .collect();
        let mut pending = PendingNeeds::default();
        for (slot, header) in (0..).zip(&headers) {
            pending.insert(header, slot);
        }
        Self {
            roster,
            pending,
            agents: AgentDirectory::new(),
            headers,
        }
    }

    /// A look at these places, until it is known which targets start agents, and for which items.
    fn look(&self, places: &Places) -> usize {
        let mut starts = 0;
        for (requirements, count) in self.pending.ready_in(places) {
            let need = Need::from(&*requirements);
            let there = self.agents.count_there(&need);
            let there = there + self.roster.count_expected(&need, |_, _| true);
            let capacity = self.roster.capacity(&need);
            if missing(capacity, count as u64, 1, there as u64) > 0 {
                let target = self.roster.pick(&need, None, |_| 0, |_, _| true);
                let item = self.pending.oldest_of(&need).next();
                starts += usize::from(target.zip(item).is_some());
            }
        }
        starts
    }
}

fn target(capability: usize) -> TargetRecord<()> {
    let request: RegisterTarget = serde_json::from_value(serde_json::json!({
        "name": "bench", "agentType": "claude-code", "capabilities": [format!("c{capability}")],
        "mechanism": "local", "command": "run", "maxAgents": 50,
    }))
    .unwrap();
    let new = request.check().unwrap();
    let target = new.into_target(TargetId::generate(), "bench".into(), now());
    let need = loom_protocol::target::Need {
        capability: format!("c{capability}"),
        boundary: "elsewhere".into(),
        required_agent_type: None,
    };
    let birth = Birth {
        operation: SpinUpOperation {
            operation_id: SpinUpId::generate(),
            target_id: target.id,
            target_name: target.name.clone(),
            mechanism: target.mechanism,
            status: SpinUpStatus::Pending,
            need: Some(need.clone()),
            work_item_id: None,
            agent_guid: None,
            error: None,
            output: None,
            started_at: now(),
            ended_at: None,
        },
        ticket: TicketTerms::of(&target, Some(&need), [0; 32]),
        reference: None,
        place: None,
        begun_again_at: None,
    };
    let mut record = TargetRecord::new(target);
    record.births.push(birth);
    record
}

fn header(at: usize, capability: usize, boundary: usize) -> Header {
    let needs = Arc::new(Requirements {
        capability: format!("c{capability}").into(),
        boundary: format!("b{boundary}").into(),
        required_agent_type: None,
        preferred_agent_type: None,
    });
    let request = SubmitRequest {
        description: "x".into(),
        capability: needs.capability.to_string(),
        boundary: Some(needs.boundary.to_string()),
        ..SubmitRequest::default()
    };
    let record = accept(request, Defaults { max_attempts: 3 }, "bench", now()).unwrap();
    Header::of(&record.record, at as u64 + 1, needs)
}

fn choosing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("choosing");
    for size in SIZES {
        let mut project = Project::new(size);
        let name =
            |what: &str| BenchmarkId::new(what, format!("{} targets, {} needs", size.0, size.1));
        let middle = project.headers[size.1 / 2].clone();
        let need = Need::from(&*middle.needs);
        let mut changed = Places::default();
        changed.add(&need.capability, Some(&need.boundary));
        assert_eq!(project.look(&changed), 1);
        assert_eq!(project.look(&Places::everywhere()), size.1);
        group.bench_function(name("a look when nothing has changed"), |bencher| {
            bencher.iter(|| project.look(black_box(&Places::default())));
        });
        group.bench_function(name("a look when one need has changed"), |bencher| {
            bencher.iter(|| project.look(black_box(&changed)));
        });
        group.bench_function(name("a look everywhere"), |bencher| {
            bencher.iter(|| project.look(black_box(&Places::everywhere())));
        });
        group.bench_function(name("the forecast of a submit"), |bencher| {
            bencher.iter(|| {
                let there = project.agents.count_there(black_box(&need));
                let born = project.roster.births(&need).next();
                let able = project.roster.pick(&need, None, |_| 0, |_, _| true);
                (there, born, able.copied())
            });
        });
        group.bench_function(name("an item comes and goes"), |bencher| {
            let slot = u32::try_from(size.1).unwrap();
            bencher.iter(|| {
                project.pending.insert(black_box(&middle), slot);
                project.pending.remove(&middle, slot);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, choosing);
criterion_main!(benches);
