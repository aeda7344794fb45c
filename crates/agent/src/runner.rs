//! Who runs items: what is the same for all of them.

use std::sync::{Arc, OnceLock};

use loom_client::AgentStopper;
use parking_lot::Mutex;

use super::host::Host;
use super::plan::Plan;
use super::rest::Rests;
use super::secrets::Secrets;
use super::socket::broker::{Line, Terms};
use super::socket::children::Slots;
use loom_process::warden::Warden;

/// Runs items by a plan.
pub struct Runner {
    pub(super) plan: Plan,
    pub(super) rests: Mutex<Rests>,
    pub(super) secrets: Secrets,
    pub(super) handle: String,
    pub(super) line: Option<Line>,
    pub(super) may_submit: Arc<[String]>,
    pub(super) slots: Slots,
    /// The variables that are the same for all items.
    pub(super) environment: Vec<(String, String)>,
    pub(super) stopper: OnceLock<AgentStopper>,
    pub(super) program_gone: OnceLock<String>,
    pub(super) warden: Option<Warden>,
    pub(super) host: Option<Arc<Host>>,
}

impl Runner {
    /// A runner for an agent called `handle`; `environment` is given to every program.
    pub fn new(plan: Plan, handle: String, environment: Vec<(String, String)>) -> Self {
        Self {
            plan,
            rests: Mutex::default(),
            secrets: Secrets::default(),
            handle,
            line: None,
            may_submit: Arc::new([]),
            slots: Slots::new(1),
            environment,
            stopper: OnceLock::new(),
            program_gone: OnceLock::new(),
            warden: None,
            host: None,
        }
    }

    /// By whom its programs are ended if this process is killed.
    #[must_use]
    pub fn guarded_by(mut self, warden: Option<Warden>) -> Self {
        self.warden = warden;
        self
    }

    /// What it runs on. Without, every trouble is taken for the host's, and nothing is known of its end.
    #[must_use]
    pub fn on_host(mut self, host: Arc<Host>) -> Self {
        self.host = Some(host);
        self
    }

    /// What is taken out of all that its programs say.
    #[must_use]
    pub fn hiding(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// By what the agent is ended if its program disappears.
    pub fn set_stopper(&self, stopper: AgentStopper) {
        let _ = self.stopper.set(stopper);
    }

    /// Why the agent can't go on, if it can't.
    pub fn program_gone(&self) -> Option<&str> {
        self.program_gone.get().map(String::as_str)
    }

    /// By what it asks on behalf of its programs.
    #[must_use]
    pub fn speaking_by(mut self, line: Line) -> Self {
        self.line = Some(line);
        self
    }

    /// What its programs may submit, and how many of them run at the same time.
    #[must_use]
    pub fn letting_submit(mut self, capabilities: &[String], slots: usize) -> Self {
        self.may_submit = capabilities.into();
        self.slots = Slots::new(slots);
        self
    }

    /// What its programs may ask.
    pub(super) fn terms(&self) -> Terms {
        Terms {
            line: self.line.clone(),
            handle: self.handle.clone(),
            may_submit: self.may_submit.clone(),
            slots: self.slots.clone(),
            secrets: self.secrets.clone(),
        }
    }
}
