//! The table of verbs: everything that may be asked of Loom, each with its name, its doors, its types and its role.
//!
//! What answers requests over NATS and over REST, what counts as a sign of life, and the table in `docs/protocol.md` come
//! from here or are held against it. Who adds a verb adds a row; the compiler and the tests name the places that are left.

use std::fmt;

use crate::agent::{
    Agent, DeregisterAnswer, DeregisterRequest, GuidRequest, HeartbeatAnswer, HeartbeatRequest,
    ListAgentsRequest, RegisterAnswer, RegisterRequest, ShutdownRequest,
};
use crate::batch::{
    CancelBatchRequest, DisableTargetsRequest, RetryBatchRequest, ShutdownBatchRequest,
};
use crate::dead_letter::{
    DeadLetter, DiscardAnswer, ListDeadLettersRequest, RetryAnswer, RetryRequest,
};
use crate::event::Event;
use crate::gc::{GcReport, GcRequest};
use crate::rest::{
    BatchResult, CancelBatchResult, DisableTargetsResult, Info, ProjectsAnswer,
    ShutdownBatchResult, Stats, Status,
};
use crate::store::{AcceptAnswer, AcceptRequest, LostAnswer, StoreAnswer};
use crate::target::{
    ListSpinUpsRequest, ListTargetsRequest, OperationRequest, RegisterTarget, SpinUpOperation,
    SpinUpRequest, TargetAnswer, TargetRequest, UpdateTarget,
};
use crate::token::ProjectId;
use crate::work::{
    CancelRequest, ClaimAnswer, ClaimRequest, CompleteAnswer, CompleteRequest, ExplainAnswer,
    FailRequest, IdRequest, Lease, ListWorkRequest, ProgressRequest, PurgeAnswer, PurgeRequest,
    QueueInfo, ReleaseRequest, StoppedRequest, SubmitRequest, Submitted, WorkItem,
};

/// What a caller may be allowed to do; each verb needs one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// To look at anything.
    Read,
    /// To give work, and to call it off.
    Submit,
    /// To be an agent.
    Work,
    /// To act on the agents and the work of others.
    Operate,
    /// Everything, in every project.
    Admin,
    /// To fetch what is measured.
    Metrics,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Submit,
        Self::Work,
        Self::Operate,
        Self::Admin,
        Self::Metrics,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Work => "work",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        }
    }
}

/// Under which subjects a verb is asked for over NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subjects {
    /// None: it is REST's alone.
    None,
    /// `coord.{project}.{name}`
    Project,
    /// `coord.global.{name}`
    Global,
    /// Both: of one project, or of all.
    Both,
}

/// What a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One project; the default one where a request over REST names none.
    Project,
    /// One project, or all of them where a request over REST names none: what it asks for is looked for everywhere.
    Projects,
    /// The coordinator as a whole.
    Coordinator,
}

/// What a verb tells of the agent that it names as its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// It names none: whoever asks says nothing of an agent.
    Nobody,
    /// A sign of life that the registry takes in together with what else the request says of the agent.
    Renews,
    /// A sign of life of an agent that has to be registered.
    Claims,
    /// A sign of life, and a report about an item, which one that is gone may still give.
    Reports,
    /// A goodbye: no sign of life.
    Leaves,
}

impl Sender {
    /// Whether it is a sign of life of the agent.
    pub const fn is_sign_of_life(self) -> bool {
        matches!(self, Self::Renews | Self::Claims | Self::Reports)
    }

    /// Whether the liveness check waits until a request that is under way has been applied: before that nobody may be
    /// taken for silent. All others say nothing of an agent, and may take long (a page of bodies, the purge of a long
    /// queue, a sweep that makes such a check itself).
    pub const fn holds_liveness_check(self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

/// A method of REST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// It changes nothing.
    Get,
    /// It does something.
    Post,
    /// It changes something that is there.
    Put,
    /// It takes something away.
    Delete,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        })
    }
}

/// Where REST has a verb. The same path behind `/p/{project}` means that project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, with `{id}` for the thing that it is about.
    pub path: &'static str,
}

/// A request that has nothing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
pub struct Nothing {}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// Which verb it is.
    pub verb: VerbName,
    /// Its name: what stands behind the project in the subject of a request.
    pub name: &'static str,
    /// Its subjects.
    pub subjects: Subjects,
    /// What it is about.
    pub scope: Scope,
    /// The role that a caller needs.
    pub role: Role,
    /// What it tells of its sender.
    pub sender: Sender,
    /// Its path.
    pub route: Option<Route>,
}

macro_rules! route {
    (-) => {
        None
    };
    ($method:ident $path:literal) => {
        Some(Route {
            method: Method::$method,
            path: $path,
        })
    };
}

macro_rules! verbs {
    ($($verb:ident $name:literal $subjects:ident $scope:ident $role:ident $sender:ident
        ($request:ty => $answer:ty) [$($route:tt)+];)+) => {
        /// The name of a verb.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum VerbName {
            $(#[doc = concat!("`", $name, "`")] $verb,)+
        }

        /// Every verb.
        pub const VERBS: &[Verb] = &[$(Verb {
            verb: VerbName::$verb,
            name: $name,
            subjects: Subjects::$subjects,
            scope: Scope::$scope,
            role: Role::$role,
            sender: Sender::$sender,
            route: route!($($route)+),
        },)+];

        fn named(name: &str) -> Option<VerbName> {
            match name {
                $($name => Some(VerbName::$verb),)+
                _ => None,
            }
        }

        /// What each verb takes and gives, over NATS or over REST where it is that one's alone, is of this crate.
        const _: () = {
            $(let _ = size_of::<($request, $answer)>();)+
        };

        #[cfg(any(test, feature = "schemas"))]
        impl VerbName {
            /// The schemas of its request and its answer; what they refer to is left in the generator.
            pub fn schemas(self, generator: &mut schemars::SchemaGenerator) -> crate::schemas::Schemas {
                match self {
                    $(Self::$verb => crate::schemas::Schemas {
                        request: generator.subschema_for::<$request>(),
                        answer: generator.subschema_for::<$answer>(),
                    },)+
                }
            }
        }

        /// What each verb reads.
        #[cfg(test)]
        const TYPES: &[tests::Types] = &[$(tests::Types::of::<$request>(VerbName::$verb),)+];
    };
}

#[rustfmt::skip]
verbs! {
//  verb                 name                    NATS     about       role    sender   request => answer                             REST
    AgentsRegister       "agents.register"       Project  Project     Work    Renews  (RegisterRequest => RegisterAnswer)           [-];
    AgentsHeartbeat      "agents.heartbeat"      Project  Project     Work    Renews  (HeartbeatRequest => HeartbeatAnswer)         [-];
    AgentsDeregister     "agents.deregister"     Project  Project     Work    Leaves  (DeregisterRequest => DeregisterAnswer)       [-];
    AgentsList           "agents.list"           Project  Projects    Read    Nobody  (ListAgentsRequest => Vec<Agent>)             [Get "/api/agents"];
    AgentsGet            "agents.get"            Project  Projects    Read    Nobody  (GuidRequest => Agent)                        [Get "/api/agents/{id}"];
    AgentsShutdown       "agents.shutdown"       Project  Projects    Operate Nobody  (ShutdownRequest => Agent)                    [Post "/api/agents/{id}/shutdown"];
    AgentsShutdownBatch  "agents.shutdown-batch" None     Projects    Operate Nobody  (ShutdownBatchRequest => ShutdownBatchResult) [Post "/api/agents/shutdown-batch"];
    AgentsResume         "agents.resume"         Project  Projects    Operate Nobody  (GuidRequest => Agent)                        [Post "/api/agents/{id}/resume"];

    WorkSubmit           "work.submit"           Project  Project     Submit  Nobody  (SubmitRequest => Submitted)                  [Post "/api/work"];
    WorkClaim            "work.claim"            Project  Project     Work    Claims  (ClaimRequest => ClaimAnswer)                 [-];
    WorkStart            "work.start"            Project  Project     Work    Reports (ProgressRequest => Lease)                    [-];
    WorkProgress         "work.progress"         Project  Project     Work    Reports (ProgressRequest => Lease)                    [-];
    WorkComplete         "work.complete"         Project  Project     Work    Reports (CompleteRequest => CompleteAnswer)           [-];
    WorkFail             "work.fail"             Project  Project     Work    Reports (FailRequest => WorkItem)                     [-];
    WorkRelease          "work.release"          Project  Project     Work    Reports (ReleaseRequest => WorkItem)                  [-];
    WorkStopped          "work.stopped"          Project  Project     Work    Reports (StoppedRequest => WorkItem)                  [-];
    WorkGet              "work.get"              Project  Projects    Read    Nobody  (IdRequest => WorkItem)                       [Get "/api/work/{id}"];
    WorkList             "work.list"             Project  Project     Read    Nobody  (ListWorkRequest => Vec<WorkItem>)            [Get "/api/work"];
    WorkCancel           "work.cancel"           Project  Projects    Submit  Nobody  (CancelRequest => WorkItem)                   [Post "/api/work/{id}/cancel"];
    WorkCancelBatch      "work.cancel-batch"     None     Projects    Operate Nobody  (CancelBatchRequest => CancelBatchResult)     [Post "/api/work/cancel-batch"];
    WorkExplain          "work.explain"          Project  Projects    Read    Nobody  (IdRequest => ExplainAnswer)                  [Get "/api/work/{id}/explain"];

    QueueInfo            "queue.info"            Project  Project     Read    Nobody  (Nothing => QueueInfo)                        [Get "/api/queue"];
    QueuePurge           "queue.purge"           Project  Project     Operate Nobody  (PurgeRequest => PurgeAnswer)                 [Post "/api/queue/purge"];
    DlqList              "dlq.list"              Project  Project     Read    Nobody  (ListDeadLettersRequest => Vec<DeadLetter>)   [Get "/api/dlq"];
    DlqGet               "dlq.get"               Project  Projects    Read    Nobody  (IdRequest => DeadLetter)                     [Get "/api/dlq/{id}"];
    DlqRetry             "dlq.retry"             Project  Projects    Operate Nobody  (RetryRequest => RetryAnswer)                 [Post "/api/dlq/{id}/retry"];
    DlqRetryBatch        "dlq.retry-batch"       None     Projects    Operate Nobody  (RetryBatchRequest => BatchResult)            [Post "/api/dlq/retry-batch"];
    DlqDiscard           "dlq.discard"           Project  Projects    Operate Nobody  (IdRequest => DiscardAnswer)                  [Delete "/api/dlq/{id}"];
    GcReport             "gc.report"             Project  Project     Read    Nobody  (Nothing => GcReport)                         [Get "/api/gc"];
    GcRun                "gc.run"                Project  Project     Operate Nobody  (GcRequest => GcReport)                       [Post "/api/gc"];

    TargetsList          "targets.list"          Project  Project     Read    Nobody  (ListTargetsRequest => Vec<TargetAnswer>)     [Get "/api/targets"];
    TargetsGet           "targets.get"           Project  Project     Read    Nobody  (TargetRequest => TargetAnswer)               [Get "/api/targets/{id}"];
    TargetsRegister      "targets.register"      Project  Project     Operate Nobody  (RegisterTarget => TargetAnswer)              [Post "/api/targets"];
    TargetsUpdate        "targets.update"        Project  Project     Operate Nobody  (UpdateTarget => TargetAnswer)                [Put "/api/targets/{id}"];
    TargetsRemove        "targets.remove"        Project  Project     Operate Nobody  (TargetRequest => TargetAnswer)               [Delete "/api/targets/{id}"];
    TargetsEnable        "targets.enable"        Project  Project     Operate Nobody  (TargetRequest => TargetAnswer)               [Post "/api/targets/{id}/enable"];
    TargetsDisable       "targets.disable"       Project  Project     Operate Nobody  (TargetRequest => TargetAnswer)               [Post "/api/targets/{id}/disable"];
    TargetsDisableBatch  "targets.disable-batch" None     Project     Operate Nobody  (DisableTargetsRequest => DisableTargetsResult) [Post "/api/targets/disable-batch"];

    SpinUpTrigger        "spin-up.trigger"       Project  Project     Operate Nobody  (SpinUpRequest => SpinUpOperation)            [Post "/api/targets/{id}/spin-up"];
    SpinUpStatus         "spin-up.status"        Project  Projects    Read    Nobody  (OperationRequest => SpinUpOperation)         [Get "/api/spin-ups/{id}"];
    SpinUpList           "spin-up.list"          Project  Project     Read    Nobody  (ListSpinUpsRequest => Vec<SpinUpOperation>)  [Get "/api/spin-ups"];

    Stats                "stats"                 Both     Projects    Read    Nobody  (Nothing => Stats)                            [Get "/api/stats"];
    Projects             "projects"              Global   Coordinator Read    Nobody  (Nothing => ProjectsAnswer)                   [Get "/api/stats/projects"];
    Info                 "info"                  Global   Coordinator Read    Nobody  (Nothing => Info)                             [Get "/api/info"];
    Status               "status"                None     Coordinator Read    Nobody  (Nothing => Status)                           [Get "/api/status"];
    Metrics              "metrics"               None     Coordinator Metrics Nobody  (Nothing => String)                           [Get "/metrics"];
    Events               "events"                None     Project     Read    Nobody  (Nothing => Event)                            [Get "/api/events"];
    Store                "store"                 None     Coordinator Read    Nobody  (Nothing => StoreAnswer)                      [Get "/api/store"];
    StoreLost            "store.lost"            None     Projects    Read    Nobody  (Nothing => LostAnswer)                       [Get "/api/store/lost"];
    StoreAccept          "store.accept"          None     Projects    Admin   Nobody  (AcceptRequest => AcceptAnswer)               [Post "/api/store/accept"];
}

/// Paths that are no verbs: whether the process lives, and whether it can serve. They are open to everybody, behind no
/// project.
pub const OPEN_PATHS: [&str; 2] = ["/health", "/ready"];

/// `work.status.{id}` is `work.get` by another name: existing clients ask so.
const STATUS_OF: &str = "work.status.";

impl VerbName {
    /// Its row in the table.
    pub const fn row(self) -> &'static Verb {
        &VERBS[self as usize]
    }

    /// Its name, like `work.submit`.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }
}

impl AsRef<str> for VerbName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for VerbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the subject of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressed<'a> {
    /// The project as it stands there; `None`: the coordinator as a whole.
    pub project: Option<&'a str>,
    /// The verb.
    pub verb: VerbName,
    /// The id, where it stands in the subject.
    pub id: Option<&'a str>,
}

impl<'a> Addressed<'a> {
    /// Reads `coord.{project}.{name}` and `coord.global.{name}`; `None` where there is no such verb there.
    pub fn read(subject: &'a str) -> Option<Self> {
        let (project, name) = subject.strip_prefix("coord.")?.split_once('.')?;
        let project = (project != ProjectId::GLOBAL).then_some(project);
        let (verb, id) = match name.strip_prefix(STATUS_OF) {
            Some(id) => (VerbName::WorkGet, Some(id)),
            None => (named(name)?, None),
        };
        let is_there = match verb.row().subjects {
            Subjects::None => false,
            Subjects::Project => project.is_some(),
            Subjects::Global => project.is_none(),
            Subjects::Both => true,
        };
        is_there.then_some(Self { project, verb, id })
    }
}

#[cfg(test)]
mod tests;
