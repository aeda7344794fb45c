//! The names of a project's actors: the one list of them.

macro_rules! actors {
    ($($(#[doc = $promise:literal])+ $actor:ident $name:literal $key:literal;)+) => {
        /// An actor of a project.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ActorName {
            $($(#[doc = $promise])+ $actor,)+
        }

        impl ActorName {
            /// Every one.
            pub const ALL: [Self; [$($key),+].len()] = [$(Self::$actor),+];

            /// The name as its supervisor and the log have it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$actor => $name,)+ }
            }

            /// The name as the configuration has it: `[supervision.<key>]`.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$actor => $key,)+ }
            }
        }
    };
}

actors! {
    /// Knows who is there.
    AgentRegistry "agent-registry" "agent_registry";
    /// Matches work with claims.
    WorkDispatcher "work-dispatcher" "work_dispatcher";
    /// Writes every transition.
    WorkLedger "work-ledger" "work_ledger";
    /// Judges who is dead.
    GcReaper "gc-reaper" "gc_reaper";
    /// Keeps what was given up.
    DlqRetrier "dlq-retrier" "dlq_retrier";
    /// Knows where agents can be started.
    TargetManager "target-manager" "target_manager";
}

impl ActorName {
    /// The one that the configuration calls so.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|actor| actor.key() == key)
    }
}
