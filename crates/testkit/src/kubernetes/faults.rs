//! Requests that fail.

use super::Rules;

/// How a request fails.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// It is answered with this status and, where said, is to be repeated after so many seconds.
    Status(u16, Option<u64>),
    /// Its connection breaks before it is done.
    LostRequest,
    /// It is done, and its connection breaks before that is told.
    LostAnswer,
    /// It is never answered.
    Hangs,
}

/// Which requests fail.
#[derive(Debug, Clone)]
pub struct Fault {
    verb: &'static str,
    resource: &'static str,
    failure: Failure,
    after: usize,
    times: usize,
}

impl Fault {
    /// The next request of this verb (`create`, `get`, `list`, `watch`, `update`, `patch`, `delete`) for this resource
    /// (`jobs`, `secrets`, `pods`, `pods/log`) fails.
    pub const fn new(verb: &'static str, resource: &'static str, failure: Failure) -> Self {
        Self {
            verb,
            resource,
            failure,
            after: 0,
            times: 1,
        }
    }

    /// So many of them fail.
    #[must_use]
    pub const fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// So many of them are let through before.
    #[must_use]
    pub const fn after(mut self, after: usize) -> Self {
        self.after = after;
        self
    }
}

impl Rules {
    /// How this request fails, where it does.
    pub(super) fn next_failure(&mut self, verb: &str, resource: &str) -> Option<Failure> {
        let mut faults = self.faults.iter_mut();
        let fault = faults
            .find(|fault| fault.times > 0 && (fault.verb, fault.resource) == (verb, resource))?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.failure)
    }
}
