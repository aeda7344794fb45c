//! The names of subjects, streams and buckets. Nobody writes one of them by hand anywhere else.

use std::fmt::Display;

use crate::id::{AgentGuid, SpinUpId, WorkId};
use crate::token::{self, ProjectId};

/// The bucket with the lease of the owning coordinator, and its key.
pub const OWNERS_BUCKET: &str = "LOOM_OWNERS";
/// The key of the lease in [`OWNERS_BUCKET`].
pub const OWNER_KEY: &str = "coordinator";
/// The header on the registry's own writes to the agents bucket; without it a put is an agent's.
pub const WRITER_HEADER: &str = "Loom-Writer";
/// The header of a dead letter with what a list is made from.
pub const LETTER_HEADER: &str = "Loom-Letter";
/// The header with the cursor of the next page.
pub const NEXT_CURSOR_HEADER: &str = "Loom-Next-Cursor";
/// What the subject of every request matches: `coord.{project}.{resource}.{action}`, `coord.global.{what}`.
pub const ALL_REQUESTS: &str = "coord.>";

/// The bucket in which existing clients keep the agents of all projects; only they write there.
pub const SHARED_AGENTS_BUCKET: &str = "agent-registry";

/// What the subjects of all submissions match that are published, of whichever project.
pub const ALL_QUEUES: &str = "loom.*.work.queue.*";

const WORK_STREAM: &str = "LOOM_WORK_";
const AGENTS_BUCKET: &str = "loom-agents-";
const WORK_BUCKET: &str = "loom-work-";
const GRAVEYARD_BUCKET: &str = "loom-graveyard-";
const TARGETS_BUCKET: &str = "loom-targets-";
const TARGET_KEY: &str = "target.";
const SPIN_UP_KEY: &str = "spin-up.";

/// `loom-{epoch}`, the queue group in which the owner of that epoch takes requests.
pub fn queue_group(epoch: u64) -> String {
    format!("loom-{epoch}")
}

/// `loom-agents-{p}`, owned by the AgentRegistry.
pub fn agents_bucket(project: &ProjectId) -> String {
    format!("{AGENTS_BUCKET}{project}")
}

/// `loom-work-{p}`, owned by the WorkLedger.
pub fn work_bucket(project: &ProjectId) -> String {
    format!("{WORK_BUCKET}{project}")
}

/// `loom-graveyard-{p}`, owned by the GcReaper.
pub fn graveyard_bucket(project: &ProjectId) -> String {
    format!("{GRAVEYARD_BUCKET}{project}")
}

/// `loom-targets-{p}`, owned by the TargetManager; there from the first target on.
pub fn targets_bucket(project: &ProjectId) -> String {
    format!("{TARGETS_BUCKET}{project}")
}

/// `target.{name in lower case}`, its dots escaped: the key of a target in its bucket, so that a name is there once in
/// whatever case.
pub fn target_key(name: &str) -> String {
    format!("{TARGET_KEY}{}", token::encode(&name.to_ascii_lowercase()))
}

/// The key of a start that is decided, in the same bucket.
pub fn spin_up_key(id: SpinUpId) -> String {
    format!("{SPIN_UP_KEY}{id}")
}

/// The start whose key of that bucket this is.
pub fn spin_up_of_key(key: &str) -> Option<SpinUpId> {
    key.strip_prefix(SPIN_UP_KEY)?.parse().ok()
}

/// The name in lower case that a key of that bucket stands for; `None`: no target can be called so.
pub fn target_of_key(key: &str) -> Option<String> {
    let name = token::decode(key.strip_prefix(TARGET_KEY)?)?;
    (target_key(&name) == key).then_some(name)
}

/// Whether a key of that bucket is one of a target.
pub fn is_target_key(key: &str) -> bool {
    key.starts_with(TARGET_KEY)
}

/// `LOOM_WORK_{P}`, owned by the WorkDispatcher.
pub fn work_stream(project: &ProjectId) -> String {
    format!("{WORK_STREAM}{}", project.stream_form())
}

/// Whether a stream has a name as work streams have: of which project, its subjects say, not its name.
pub fn is_work_stream(stream: &str) -> bool {
    stream.starts_with(WORK_STREAM)
}

/// `LOOM_DLQ_{P}`, owned by the DlqRetrier.
pub fn dead_letter_stream(project: &ProjectId) -> String {
    format!("LOOM_DLQ_{}", project.stream_form())
}

/// `loom.{p}.dlq.*`
pub fn all_dead_letters(project: &ProjectId) -> String {
    format!("loom.{project}.dlq.*")
}

/// `loom.{p}.dlq.{id}`
pub fn dead_letter(project: &ProjectId, id: WorkId) -> String {
    format!("loom.{project}.dlq.{id}")
}

/// The project whose agents or work bucket a stream is (the name of a stream behind a bucket
/// begins with `KV_`).
pub fn project_of_stream(stream: &str) -> Option<ProjectId> {
    let bucket = stream.strip_prefix("KV_")?;
    let id = bucket
        .strip_prefix(AGENTS_BUCKET)
        .or_else(|| bucket.strip_prefix(WORK_BUCKET))?;
    ProjectId::new(id).ok()
}

/// The subjects that the work stream stores; exact ones, so that nothing lies there that nobody reads.
pub fn work_stream_subjects(project: &ProjectId) -> Vec<String> {
    vec![
        queue_filter(project),
        work_completed(project),
        work_errors(project),
    ]
}

/// `loom.{p}.work.queue.*`
pub fn queue_filter(project: &ProjectId) -> String {
    format!("loom.{project}.work.queue.*")
}

/// `loom.{p}.work.queue.{capability}`
pub fn work_queue(project: &ProjectId, capability: &str) -> String {
    format!("loom.{project}.work.queue.{}", token::encode(capability))
}

/// The project of a queue subject, or of a filter over the queue subjects of one project.
pub fn project_of_queue(subject: &str) -> Option<ProjectId> {
    let mut tokens = subject.split('.');
    let begin = [tokens.next(), tokens.next(), tokens.next(), tokens.next()];
    tokens.next()?;
    match begin {
        [Some("loom"), Some(project), Some("work"), Some("queue")] => ProjectId::new(project).ok(),
        _ => None,
    }
}

/// The capability in the last token of a queue subject.
pub fn capability_of_queue(subject: &str) -> Option<String> {
    token::decode(subject.rsplit('.').next()?)
}

/// `loom.{p}.work.completed`
pub fn work_completed(project: &ProjectId) -> String {
    format!("loom.{project}.work.completed")
}

/// `loom.{p}.work.errors`
pub fn work_errors(project: &ProjectId) -> String {
    format!("loom.{project}.work.errors")
}

/// `work.completed` or `work.errors`, of the subject of such reports.
pub fn report_kind(subject: &str) -> Option<&'static str> {
    let mut tokens = subject.split('.').skip(2);
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some("work"), Some("completed"), None) => Some("work.completed"),
        (Some("work"), Some("errors"), None) => Some("work.errors"),
        _ => None,
    }
}

/// `loom.{p}.agent.heartbeat.{guid}`
pub fn heartbeat(project: &ProjectId, guid: AgentGuid) -> String {
    format!("loom.{project}.agent.heartbeat.{guid}")
}

/// `loom.{p}.agent.heartbeat.*`
pub fn all_heartbeats(project: &ProjectId) -> String {
    format!("loom.{project}.agent.heartbeat.*")
}

/// `loom.{p}.agent.directive.{guid}`
pub fn directive(project: &ProjectId, guid: AgentGuid) -> String {
    format!("loom.{project}.agent.directive.{guid}")
}

/// `loom.{p}.agents.{guid}.shutdown`
pub fn agent_shutdown(project: &ProjectId, guid: AgentGuid) -> String {
    format!("loom.{project}.agents.{guid}.shutdown")
}

/// `loom.{p}.logs.{workItemId}.{attempt}`
pub fn logs(project: &ProjectId, id: WorkId, attempt: u32) -> String {
    format!("loom.{project}.logs.{id}.{attempt}")
}

/// `loom.{p}.events.{topic}.{type}`, for an event named `topic:type`.
pub fn event(project: &(impl Display + ?Sized), event: &str) -> String {
    let (topic, kind) = event.split_once(':').unwrap_or(("other", event));
    format!("loom.{project}.events.{topic}.{kind}")
}

/// `loom.{p}.events.>`
pub fn all_events(project: &ProjectId) -> String {
    format!("loom.{project}.events.>")
}

/// `coord.{p}.{resource}.{action}`, for an action written `resource.action`.
pub fn request(project: &ProjectId, action: &str) -> String {
    format!("coord.{project}.{action}")
}

/// The `Nats-Msg-Id` of a published report. The run is part of it where there is one: the server drops a
/// second message with the same id, and what a replaced run publishes must not block what the present one does.
pub fn report_id(id: WorkId, attempt: u32, instance_id: Option<&str>) -> String {
    match instance_id {
        Some(run) => format!("{id}.{attempt}.{run}"),
        None => format!("{id}.{attempt}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_contract() {
        let project = ProjectId::new("my-app").unwrap();
        assert_eq!(agents_bucket(&project), "loom-agents-my-app");
        assert_eq!(work_stream(&project), "LOOM_WORK_MY_APP");
        assert_eq!(dead_letter_stream(&project), "LOOM_DLQ_MY_APP");
        assert_eq!(targets_bucket(&project), "loom-targets-my-app");
        assert_eq!(target_key("Big.Host."), "target.big=2Ehost=2E");
        let queue = work_queue(&project, "node.js");
        assert_eq!(queue, "loom.my-app.work.queue.node=2Ejs");
        assert_eq!(capability_of_queue(&queue).as_deref(), Some("node.js"));
        assert_eq!(
            event(&project, "work:submitted"),
            "loom.my-app.events.work.submitted"
        );
    }

    #[test]
    fn reports_of_two_runs_are_two_messages() {
        let id = WorkId::generate();
        assert_eq!(report_id(id, 2, None), format!("{id}.2"));
        assert_eq!(report_id(id, 2, Some("run-1")), format!("{id}.2.run-1"));
    }

    #[test]
    fn projects_are_found_by_their_buckets() {
        let found = |stream| project_of_stream(stream).map(|p| p.to_string());
        assert_eq!(found("KV_loom-agents-a-b").as_deref(), Some("a-b"));
        assert_eq!(found("KV_loom-work-x").as_deref(), Some("x"));
        assert_eq!(found("KV_other"), None);
        assert_eq!(found("LOOM_WORK_X"), None);
    }

    #[test]
    fn the_project_of_a_work_stream_is_found_by_its_subjects() {
        assert!(is_work_stream("LOOM_WORK_X") && !is_work_stream("KV_loom-work-x"));
        let found = |subject| project_of_queue(subject).map(|p| p.to_string());
        assert_eq!(
            found("loom.My-App.work.queue.rust").as_deref(),
            Some("My-App")
        );
        assert_eq!(found("loom.my_app.work.queue.>").as_deref(), Some("my_app"));
        for other in [
            "loom.*.work.queue.*",
            "loom.p.work.queue",
            "loom.p.work.completed",
            "loom.>",
            "loom.global.work.queue.rust",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
