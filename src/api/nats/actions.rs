//! Which request is which method of the service.

use async_nats::{Client, Message};
use loom_actors::work_dispatcher::Admission;
use loom_protocol::agent::{GuidRequest, ListAgentsRequest};
use loom_protocol::dead_letter::RetryRequest;
use loom_protocol::gc::GcRequest;
use loom_protocol::work::{
    CancelRequest, ClaimRequest, CompleteAnswer, CompleteRequest, IdRequest, ListWorkRequest,
    PurgeRequest, SubmitRequest,
};
use loom_protocol::{Encoding, ProjectId, WireError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Done;
use crate::service::{Ignored, Page, Service, Submitted, Turn, without_long_texts};

/// What every server carries, in bytes, so that its limit need not be asked for.
const ALWAYS_CARRIED: usize = 64 * 1024;

/// `coord.{p}.work.status.{id}` is `work.get` by another name.
const WORK_STATUS: &str = "work.status.";

/// What an order came to, with `success: true` among its fields: existing clients look for that.
#[derive(Serialize)]
struct Successful<T> {
    success: bool,
    #[serde(flatten)]
    what: T,
}

impl<T> Successful<T> {
    const fn of(what: T) -> Self {
        Self {
            success: true,
            what,
        }
    }
}

/// One request, taken apart.
struct Request<'a> {
    client: &'a Client,
    payload: &'a [u8],
    encoding: Encoding,
    /// The turn in which a large payload is read.
    turn: Mutex<Option<Turn>>,
}

impl Request<'_> {
    fn read<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        let _until_it_is_read = self.turn.lock().take();
        Ok(self.encoding.decode_request(self.payload)?)
    }

    /// A request about many things: no field of it is passed over.
    fn read_strictly<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        let _until_it_is_read = self.turn.lock().take();
        Ok(self.encoding.decode_strictly(self.payload, &[])?)
    }

    /// What was completed is recorded: an answer to that must go out, shorter if need be.
    fn completed(&self, answer: CompleteAnswer) -> Result<Done, WireError> {
        let done = self.done(&answer)?;
        if done.size() <= ALWAYS_CARRIED || done.size() <= self.client.server_info().max_payload {
            return Ok(done);
        }
        self.done(&without_long_texts(answer))
    }

    fn done(&self, value: &impl Serialize) -> Result<Done, WireError> {
        Done::new(value, self.encoding)
    }

    fn page<T: Serialize>(&self, page: &Page<T>) -> Result<Done, WireError> {
        Ok(self
            .done(&page.items)?
            .with_cursor(page.info.next_cursor.clone()))
    }
}

/// Carries a request out. Each action is boxed, so that the task of a request is as small as the
/// action it is about, not as the largest of all. A claim gives its permit back when it waits:
/// waiting claims have a bound of their own.
pub(super) async fn carry_out(
    service: &Service,
    client: &Client,
    message: &Message,
    encoding: Encoding,
    admission: Admission,
) -> Result<Done, WireError> {
    let request = Request {
        client,
        payload: &message.payload,
        encoding,
        turn: Mutex::new(service.turn_for(message.payload.len()).await?),
    };
    let subject = message.subject.as_str();
    let unknown = || {
        WireError::invalid(format!(
            "nobody answers {subject}; requests go to coord.{{project}}.{{resource}}.{{action}}, like coord.default.work.submit"
        ))
    };
    let (project, action) = subject
        .strip_prefix("coord.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or_else(unknown)?;
    if project == ProjectId::GLOBAL {
        return match action {
            "stats" => request.done(&service.stats(None)),
            "projects" => request.done(&service.project_summaries()),
            "info" => request.done(&service.info()),
            _ => Err(unknown()),
        };
    }
    let project = &ProjectId::new(project)?;
    let some = Some(project);
    match action {
        "agents.register" => {
            request.done(&Box::pin(service.register(project, request.read()?)).await?)
        }
        "agents.heartbeat" => {
            request.done(&Box::pin(service.heartbeat(project, request.read()?)).await?)
        }
        "agents.deregister" => {
            request.done(&Box::pin(service.deregister(project, request.read()?)).await?)
        }
        "agents.list" => {
            let list: ListAgentsRequest = request.read()?;
            let _turn = service.turn().await?;
            if list.unreadable {
                return request.done(&service.list_unreadable(some, list.limit)?.unreadable);
            }
            request.page(&service.list_agents(some, &list)?)
        }
        "agents.get" => {
            let agent: GuidRequest = request.read()?;
            request.done(&service.get_agent(some, &agent.guid)?)
        }
        "agents.shutdown" => {
            let agent = Box::pin(service.shutdown_agent(some, request.read()?)).await?;
            request.done(&Successful::of(agent))
        }
        "agents.resume" => {
            let agent: GuidRequest = request.read()?;
            request.done(&Box::pin(service.resume_agent(some, &agent.guid)).await?)
        }
        "gc.report" => {
            let _turn = service.turn().await?;
            request.done(&Box::pin(service.gc_report(project)).await?)
        }
        "gc.run" => {
            let run: GcRequest = request.read_strictly()?;
            request.done(&Box::pin(service.gc_run(project, &run)).await?)
        }
        "work.submit" => {
            let mut ignored = Ignored::default();
            let until_it_is_read = request.turn.lock().take();
            let submit: SubmitRequest =
                encoding.decode_noting(request.payload, &mut |path| ignored.note(&path))?;
            drop(until_it_is_read);
            match Box::pin(service.submit(project, submit, ignored)).await? {
                Submitted::One(answer) => request.done(&answer),
                many @ Submitted::Many { .. } => request.done(&many),
            }
        }
        "work.claim" => {
            let claim: ClaimRequest = request.read()?;
            request.done(&Box::pin(service.claim(project, claim, &admission)).await?)
        }
        "work.start" => request.done(&Box::pin(service.start(project, request.read()?)).await?),
        "work.progress" => {
            request.done(&Box::pin(service.progress(project, request.read()?)).await?)
        }
        "work.complete" => {
            let complete: CompleteRequest = request.read()?;
            let answer = Box::pin(service.complete(project, complete, &admission)).await?;
            request.completed(answer)
        }
        "work.fail" => request.done(&Box::pin(service.fail(project, request.read()?)).await?),
        "work.release" => request.done(&Box::pin(service.release(project, request.read()?)).await?),
        "work.stopped" => request.done(&Box::pin(service.stopped(project, request.read()?)).await?),
        "work.get" => {
            let item: IdRequest = request.read()?;
            request.done(&Box::pin(service.get_work(some, &item.id)).await?)
        }
        "work.list" => {
            let list: ListWorkRequest = request.read()?;
            let _turn = service.turn().await?;
            request.page(&Box::pin(service.list_work(project, list)).await?)
        }
        "work.cancel" => {
            let cancel: CancelRequest = request.read()?;
            let item = Box::pin(service.cancel(some, cancel)).await?;
            request.done(&Successful::of(item))
        }
        "work.explain" => {
            let item: IdRequest = request.read()?;
            let _turn = service.turn().await?;
            request.done(&Box::pin(service.explain(some, &item.id)).await?)
        }
        "queue.info" => request.done(&Box::pin(service.queue_info(project)).await?),
        "queue.purge" => {
            let purge: PurgeRequest = request.read_strictly()?;
            request.done(&Box::pin(service.purge(project, purge)).await?)
        }
        "dlq.list" => {
            let list = request.read()?;
            let _turn = service.turn().await?;
            request.page(&Box::pin(service.list_dead_letters(project, list)).await?)
        }
        "dlq.get" => {
            let letter: IdRequest = request.read()?;
            request.done(&Box::pin(service.get_dead_letter(some, &letter.id)).await?)
        }
        "dlq.retry" => {
            let retry: RetryRequest = request.read_strictly()?;
            request.done(&Box::pin(service.retry_dead_letters(some, retry)).await?)
        }
        "dlq.discard" => {
            let letter: IdRequest = request.read()?;
            request.done(&Box::pin(service.discard_dead_letter(some, &letter.id)).await?)
        }
        "stats" => request.done(&service.stats(some)),
        // What existing clients ask; the id stands in the subject.
        _ if action.starts_with(WORK_STATUS) => {
            let id = &action[WORK_STATUS.len()..];
            request.done(&Box::pin(service.get_work(some, id)).await?)
        }
        _ => Err(unknown()),
    }
}
