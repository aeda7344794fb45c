//! What is measured of Loom: submit, and submit→claim→complete; one by one, with `thenClaim`, and by arrays.

use std::cell::RefCell;
use std::time::Instant;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use loom_protocol::AgentGuid;
use loom_protocol::work::SubmitRequest;

use super::load::{Sample, drive, latencies, record};
use super::requests::{Given, RequestError, Requests, array_of, item};

/// How many registrations are under way at a time.
const REGISTRATIONS_IN_FLIGHT: usize = 64;

/// Items of one capability and the agents that take them.
pub(super) struct Workload {
    requests: Requests,
    agents: Vec<AgentGuid>,
    one: SubmitRequest,
    array: SubmitRequest,
    array_size: usize,
}

impl Workload {
    /// Registers `agents` for `capability`.
    pub async fn open(
        requests: &Requests,
        capability: &str,
        agents: usize,
        payload: usize,
        array_size: usize,
    ) -> Result<Self, RequestError> {
        let one = item(capability, payload);
        Ok(Self {
            agents: register(requests, capability, agents).await?,
            requests: requests.clone(),
            array: array_of(&one, array_size),
            one,
            array_size,
        })
    }

    /// Lets the agents go.
    pub async fn close(self) -> Result<(), RequestError> {
        let requests = &self.requests;
        stream::iter(self.agents)
            .map(|guid| requests.deregister(guid))
            .buffer_unordered(REGISTRATIONS_IN_FLIGHT)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await
    }

    /// What one item is submitted with.
    pub const fn one(&self) -> &SubmitRequest {
        &self.one
    }

    /// One request per item.
    pub async fn submit(&self, items: usize, in_flight: usize) -> Sample {
        drive(items, 1, in_flight, |_| async {
            self.requests.submit(&self.one).await.map(drop)
        })
        .await
    }

    /// One request per array.
    pub async fn submit_arrays(&self, items: usize, in_flight: usize) -> Sample {
        let arrays = items / self.array_size;
        drive(arrays, self.array_size, in_flight, |_| {
            self.requests.submit_array(&self.array)
        })
        .await
    }

    /// Submit, claim and complete, each a request of its own.
    pub async fn cycle(&self, items: usize, in_flight: usize) -> Sample {
        drive(items, 1, in_flight, |number| async move {
            self.requests.submit(&self.one).await?;
            let given = self.claim(number).await?;
            self.complete(number, &given).await
        })
        .await
    }

    /// An agent claims one item.
    pub async fn claim(&self, number: usize) -> Result<Vec<Given>, RequestError> {
        self.requests.claim(self.agent(number), 1).await
    }

    /// It completes what it was given.
    pub async fn complete(&self, number: usize, given: &[Given]) -> Result<(), RequestError> {
        let agent = self.agent(number);
        self.requests.complete(agent, given, None).await.map(drop)
    }

    /// As many workers as requests may be in flight: each submits an item, then completes the one that it holds and
    /// claims the next with it.
    pub async fn cycle_then_claim(&self, items: usize, in_flight: usize) -> Sample {
        self.work_through(items, 1, in_flight).await
    }

    /// The same with arrays.
    pub async fn cycle_arrays(&self, items: usize, in_flight: usize) -> Sample {
        self.work_through(items, self.array_size, in_flight).await
    }

    async fn work_through(&self, items: usize, at_a_time: usize, in_flight: usize) -> Sample {
        let turns = (items / at_a_time / in_flight).max(1);
        let steps = RefCell::new(latencies());
        let sample = drive(in_flight, turns * at_a_time, in_flight, |worker| {
            self.work_on(self.agent(worker), at_a_time, turns, &steps)
        })
        .await;
        Sample {
            latencies: steps.into_inner(),
            ..sample
        }
    }

    async fn work_on(
        &self,
        guid: AgentGuid,
        at_a_time: usize,
        turns: usize,
        steps: &RefCell<Histogram<u64>>,
    ) -> Result<(), RequestError> {
        self.submit_at_once(at_a_time).await?;
        let mut held = self.requests.claim(guid, at_a_time).await?;
        for _ in 1..turns {
            let begun = Instant::now();
            self.submit_at_once(at_a_time).await?;
            let next = Some(at_a_time);
            held = self.requests.complete(guid, &held, next).await?;
            record(&mut steps.borrow_mut(), begun.elapsed());
        }
        self.requests.complete(guid, &held, None).await.map(drop)
    }

    async fn submit_at_once(&self, items: usize) -> Result<(), RequestError> {
        if items == 1 {
            return self.requests.submit(&self.one).await.map(drop);
        }
        self.requests.submit_array(&self.array).await
    }

    fn agent(&self, number: usize) -> AgentGuid {
        self.agents[number % self.agents.len()]
    }
}

async fn register(
    requests: &Requests,
    capability: &str,
    count: usize,
) -> Result<Vec<AgentGuid>, RequestError> {
    stream::iter(0..count)
        .map(|number| requests.register(format!("bench-{number}"), capability))
        .buffer_unordered(REGISTRATIONS_IN_FLIGHT)
        .try_collect()
        .await
}
