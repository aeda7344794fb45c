//! Which verb is which method of the service.

use async_nats::{Client, Message};
use loom_actors::work_dispatcher::Admission;
use loom_protocol::agent::{GuidRequest, ListAgentsRequest};
use loom_protocol::dead_letter::RetryRequest;
use loom_protocol::gc::GcRequest;
use loom_protocol::target::{
    ListSpinUpsRequest, ListTargetsRequest, OperationRequest, RegisterTarget, SpinUpRequest,
    TargetRequest, UpdateTarget,
};
use loom_protocol::verbs::Addressed;
use loom_protocol::work::{
    CancelRequest, ClaimRequest, CompleteAnswer, CompleteRequest, IdRequest, ListWorkRequest,
    PurgeRequest, SubmitRequest,
};
use loom_protocol::{Encoding, ProjectId, VerbName, WireError};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::Done;
use crate::access::{Caller, Door};
use crate::service::{Ignored, Page, Service, Turn, aside, without_long_texts};

/// What every server carries, in bytes, so that its limit need not be asked for.
const ALWAYS_CARRIED: usize = 64 * 1024;

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
        self.in_its_turn(|| Ok(self.encoding.decode_request(self.payload)?))
    }

    /// A request about many things: no field of it is passed over.
    fn read_strictly<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        self.in_its_turn(|| Ok(self.encoding.decode_strictly(self.payload, &[])?))
    }

    /// Reads the payload in the turn that it has if it is large, which ends with that.
    fn in_its_turn<T>(&self, read: impl FnOnce() -> T) -> T {
        match self.turn.lock().take() {
            None => read(),
            Some(_until_it_is_read) => aside(read),
        }
    }

    /// What was completed is recorded: an answer to that must go out, shorter if need be.
    fn completed(&self, answer: CompleteAnswer) -> Result<Done, WireError> {
        let done = self.done(&answer)?;
        if done.size() <= ALWAYS_CARRIED || done.size() <= self.client.max_payload() {
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

/// Nobody answers this subject: it names no project, or no verb.
fn unknown(subject: &str) -> WireError {
    let named = subject.split('.').nth(1);
    let project = named.filter(|named| *named != ProjectId::GLOBAL);
    if let Some(Err(error)) = project.map(ProjectId::new) {
        return error.into();
    }
    WireError::invalid(format!(
        "nobody answers {subject}; requests go to coord.{{project}}.{{resource}}.{{action}}, like coord.default.work.submit"
    ))
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
    let subject = message.subject.as_str();
    let Addressed { project, verb, id } =
        Addressed::read(subject).ok_or_else(|| unknown(subject))?;
    let project = project.map(ProjectId::new).transpose()?;
    let caller = &Caller::everybody(Door::Nats).allow(verb, project)?;
    service.settled(caller).await;
    let request = Request {
        client,
        payload: &message.payload,
        encoding,
        // Not before: whoever waits for a project that starts keeps nobody from reading.
        turn: Mutex::new(service.turn_for(message.payload.len()).await?),
    };
    match verb {
        VerbName::AgentsRegister => {
            request.done(&Box::pin(service.register(caller, request.read()?)).await?)
        }
        VerbName::AgentsHeartbeat => {
            request.done(&Box::pin(service.heartbeat(caller, request.read()?)).await?)
        }
        VerbName::AgentsDeregister => {
            request.done(&Box::pin(service.deregister(caller, request.read()?)).await?)
        }
        VerbName::AgentsList => {
            let list: ListAgentsRequest = request.read()?;
            let listed = async {
                if list.unreadable {
                    return request.done(&service.list_unreadable(caller, list.limit)?.unreadable);
                }
                request.page(&service.list_agents(caller, &list)?)
            };
            Box::pin(service.in_turn(caller, listed)).await
        }
        VerbName::AgentsGet => {
            let agent: GuidRequest = request.read()?;
            request.done(&service.get_agent(caller, &agent.guid)?)
        }
        VerbName::AgentsShutdown => {
            let agent = Box::pin(service.shutdown_agent(caller, request.read()?)).await?;
            request.done(&Successful::of(agent))
        }
        VerbName::AgentsResume => {
            let agent: GuidRequest = request.read()?;
            request.done(&Box::pin(service.resume_agent(caller, &agent.guid)).await?)
        }
        VerbName::GcReport => {
            let report = service.in_turn(caller, service.gc_report(caller));
            request.done(&Box::pin(report).await?)
        }
        VerbName::GcRun => {
            let run: GcRequest = request.read_strictly()?;
            request.done(&Box::pin(service.gc_run(caller, &run)).await?)
        }
        VerbName::WorkSubmit => {
            let mut ignored = Ignored::default();
            let submit: SubmitRequest = request.in_its_turn(|| {
                encoding.decode_noting(request.payload, &mut |path| ignored.note(&path))
            })?;
            request.done(&Box::pin(service.submit(caller, submit, ignored)).await?)
        }
        VerbName::WorkClaim => {
            let claim: ClaimRequest = request.read()?;
            request.done(&Box::pin(service.claim(caller, claim, &admission)).await?)
        }
        VerbName::WorkStart => {
            request.done(&Box::pin(service.start(caller, request.read()?)).await?)
        }
        VerbName::WorkProgress => {
            request.done(&Box::pin(service.progress(caller, request.read()?)).await?)
        }
        VerbName::WorkComplete => {
            let complete: CompleteRequest = request.read()?;
            let answer = Box::pin(service.complete(caller, complete, &admission)).await?;
            request.completed(answer)
        }
        VerbName::WorkFail => request.done(&Box::pin(service.fail(caller, request.read()?)).await?),
        VerbName::WorkRelease => {
            request.done(&Box::pin(service.release(caller, request.read()?)).await?)
        }
        VerbName::WorkStopped => {
            request.done(&Box::pin(service.stopped(caller, request.read()?)).await?)
        }
        VerbName::WorkGet => {
            // Existing clients write the id into the subject.
            let id = match id {
                Some(id) => id.to_owned(),
                None => request.read::<IdRequest>()?.id,
            };
            request.done(&Box::pin(service.get_work(caller, &id)).await?)
        }
        VerbName::WorkList => {
            let list: ListWorkRequest = request.read()?;
            let listed = async { request.page(&service.list_work(caller, list).await?) };
            Box::pin(service.in_turn(caller, listed)).await
        }
        VerbName::WorkCancel => {
            let cancel: CancelRequest = request.read()?;
            let item = Box::pin(service.cancel(caller, cancel)).await?;
            request.done(&Successful::of(item))
        }
        VerbName::WorkExplain => {
            let item: IdRequest = request.read()?;
            request.done(&Box::pin(service.explain(caller, &item.id)).await?)
        }
        VerbName::QueueInfo => request.done(&Box::pin(service.queue_info(caller)).await?),
        VerbName::QueuePurge => {
            let purge: PurgeRequest = request.read_strictly()?;
            request.done(&Box::pin(service.purge(caller, purge)).await?)
        }
        VerbName::DlqList => {
            let list = request.read()?;
            let listed = async { request.page(&service.list_dead_letters(caller, list).await?) };
            Box::pin(service.in_turn(caller, listed)).await
        }
        VerbName::DlqGet => {
            let letter: IdRequest = request.read()?;
            request.done(&Box::pin(service.get_dead_letter(caller, &letter.id)).await?)
        }
        VerbName::DlqRetry => {
            let retry: RetryRequest = request.read_strictly()?;
            request.done(&Box::pin(service.retry_dead_letters(caller, retry)).await?)
        }
        VerbName::DlqDiscard => {
            let letter: IdRequest = request.read()?;
            request.done(&Box::pin(service.discard_dead_letter(caller, &letter.id)).await?)
        }
        VerbName::TargetsList => {
            let list: ListTargetsRequest = request.read()?;
            let listed = async { request.page(&service.list_targets(caller, &list).await?) };
            Box::pin(service.in_turn(caller, listed)).await
        }
        VerbName::TargetsGet => {
            let named: TargetRequest = request.read()?;
            request.done(&Box::pin(service.get_target(caller, &named.target)).await?)
        }
        VerbName::TargetsRegister => {
            let register: RegisterTarget = request.read()?;
            request.done(&Box::pin(service.register_target(caller, register)).await?)
        }
        VerbName::TargetsUpdate => {
            let UpdateTarget { target, updates } = request.read()?;
            request.done(&Box::pin(service.update_target(caller, &target, updates)).await?)
        }
        VerbName::TargetsRemove => {
            let named: TargetRequest = request.read()?;
            let removed = Box::pin(service.remove_target(caller, &named.target)).await?;
            request.done(&Successful::of(removed))
        }
        VerbName::TargetsEnable | VerbName::TargetsDisable => {
            let (named, on): (TargetRequest, _) =
                (request.read()?, verb == VerbName::TargetsEnable);
            request.done(&Box::pin(service.switch_target(caller, &named.target, on)).await?)
        }
        VerbName::TargetsTest => {
            let named: TargetRequest = request.read()?;
            request.done(&Box::pin(service.test_target(caller, &named.target)).await?)
        }
        VerbName::SpinUpTrigger => {
            let start: SpinUpRequest = request.read()?;
            request.done(&Box::pin(service.trigger_spin_up(caller, &start)).await?)
        }
        VerbName::SpinUpStatus => {
            let named: OperationRequest = request.read()?;
            request.done(&Box::pin(service.get_spin_up(caller, &named.operation_id)).await?)
        }
        VerbName::SpinUpList => {
            let list: ListSpinUpsRequest = request.read()?;
            let listed = async { request.page(&service.list_spin_ups(caller, &list).await?) };
            Box::pin(service.in_turn(caller, listed)).await
        }
        VerbName::Stats => request.done(&service.stats(caller)?),
        VerbName::Projects => request.done(&service.project_summaries(caller)?),
        VerbName::Info => request.done(&service.info(caller)),
        VerbName::AgentsShutdownBatch
        | VerbName::WorkCancelBatch
        | VerbName::DlqRetryBatch
        | VerbName::TargetsDisableBatch
        | VerbName::Status
        | VerbName::Metrics
        | VerbName::Events
        | VerbName::Store
        | VerbName::StoreLost
        | VerbName::StoreAccept => Err(unknown(subject)),
    }
}
