//! The inputs of a dispatch: those of the target, filled in.

use std::collections::BTreeMap;

use loom_protocol::target::{BodyTemplate, GithubActionsConfig, Placeholder};

use super::words;
use crate::order::StartOrder;

/// The inputs of a target, read.
#[derive(Debug)]
pub(super) struct Inputs(BTreeMap<String, BodyTemplate>);

impl Inputs {
    /// Reads them.
    ///
    /// # Errors
    /// One has a placeholder that does not exist, or none carries the id of the start.
    pub(super) fn of(config: &GithubActionsConfig) -> Result<Self, String> {
        let mut inputs = BTreeMap::new();
        for (name, value) in &config.inputs {
            let template = BodyTemplate::parse(value)
                .map_err(|error| format!("the input {name} of the target {error}"))?;
            inputs.insert(name.clone(), template);
        }
        let inputs = Self(inputs);
        match inputs.carrier() {
            Some(_) => Ok(inputs),
            None => Err(words::no_id(config)),
        }
    }

    /// The input that carries the id.
    pub(super) fn carrier(&self) -> Option<&str> {
        let mut carriers = self.0.iter();
        let carrier = carriers.find(|(_, template)| template.has(Placeholder::SpinUpId));
        carrier.map(|(name, _)| &**name)
    }

    /// What is sent.
    pub(super) fn fill(&self, order: &StartOrder) -> BTreeMap<String, String> {
        let filled = self.0.iter().map(|(name, template)| {
            let value = template.fill_plain(|placeholder| order.value_of(placeholder));
            (name.clone(), value)
        });
        filled.collect()
    }
}
