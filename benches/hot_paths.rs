//! What each item passes through in the coordinator, without the network: reading a submit, storing
//! a record, deciding a transition, queueing.
//!
//! `cargo bench` runs it. The whole system is measured by `cargo xtask bench`.
#![allow(missing_docs, reason = "criterion makes the items")]
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot be made should say where"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loom_actors::domain::matching::{FilterRef, Requirements};
use loom_actors::domain::work::{
    Command, Decision, Defaults, Fence, Holder, RunReport, WorkRecord, accept, accept_result,
    decode, encode,
};
use loom_actors::work_dispatcher::PendingQueue;
use loom_actors::work_ledger::Header;
use loom_protocol::work::{ReportedResult, SubmitRequest};
use loom_protocol::{AgentGuid, Encoding, Timestamp, WorkId};

/// As many items as are pending while one more comes and goes.
const BACKLOG: u64 = 100_000;

fn now() -> Timestamp {
    Timestamp::from_millis(1_750_000_000_000)
}

fn submit() -> SubmitRequest {
    SubmitRequest {
        description: "x".repeat(512),
        capability: "typescript".into(),
        ..SubmitRequest::default()
    }
}

fn pending() -> WorkRecord {
    let defaults = Defaults { max_attempts: 3 };
    accept(submit(), defaults, "bench", now()).unwrap().record
}

fn assign(guid: AgentGuid) -> Command {
    Command::Assign {
        holder: Holder {
            guid,
            handle: "bench".into(),
            agent_type: "claude-code".into(),
            hostname: None,
        },
        claim_id: Some("claim".into()),
        start: true,
    }
}

fn decided(command: &Command, record: &WorkRecord) -> WorkRecord {
    match command.decide(record, now()).unwrap() {
        Decision::Write(next) => *next,
        Decision::Already => unreachable!("the command changes something"),
    }
}

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read a submit");
    for (name, encoding) in [
        ("json", Encoding::Json),
        ("messagepack", Encoding::MessagePack),
    ] {
        let payload = encoding.encode(&submit()).unwrap();
        group.throughput(Throughput::Bytes(payload.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let request: SubmitRequest = encoding
                    .decode_noting(black_box(&payload), &mut |_| {})
                    .unwrap();
                request
            });
        });
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let record = decided(&assign(AgentGuid::generate()), &pending());
    let bytes = encode(&record).unwrap();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| encode(black_box(&record)).unwrap());
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode(black_box(&bytes)).unwrap());
    });
    group.finish();
}

fn transitions(criterion: &mut Criterion) {
    let guid = AgentGuid::generate();
    let pending = pending();
    let assign = assign(guid);
    let running = decided(&assign, &pending);
    let by = Fence {
        guid,
        attempt: Some(running.attempt),
        reported_at: now(),
    };
    let complete = Command::Complete {
        by,
        result: accept_result(ReportedResult::default(), now()).unwrap(),
        report: RunReport::default(),
    };
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("assign", |bencher| {
        bencher.iter(|| decided(black_box(&assign), black_box(&pending)));
    });
    group.bench_function("complete", |bencher| {
        bencher.iter(|| decided(black_box(&complete), black_box(&running)));
    });
    group.finish();
}

fn queue(criterion: &mut Criterion) {
    let needs = Arc::new(Requirements {
        capability: "typescript".into(),
        boundary: "default".into(),
        required_agent_type: None,
        preferred_agent_type: None,
    });
    let record = pending();
    let header = |created: u64| {
        let mut header = Header::of(&record, created, needs.clone());
        header.id = WorkId::generate();
        header
    };
    let mut queue = PendingQueue::default();
    for created in 1..=BACKLOG {
        queue.push(&header(created), now());
    }
    let capabilities = ["typescript".to_owned(), "rust".to_owned()];
    let boundaries = ["default".to_owned()];
    let wants = FilterRef {
        agent_type: "claude-code",
        capabilities: &capabilities,
        boundaries: &boundaries,
    };
    let mut created = BACKLOG;
    criterion.bench_function("push and take the best of 100,000", |bencher| {
        bencher.iter_batched(
            || {
                created += 1;
                header(created)
            },
            |header| {
                queue.push(&header, now());
                let pick = queue.best(&wants, |_| false).unwrap();
                queue.take(&pick);
                pick
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(hot_paths, requests, records, transitions, queue);
criterion_main!(hot_paths);
