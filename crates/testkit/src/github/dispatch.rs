//! A dispatch: what GitHub refuses, in its words, and the run that comes of it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::answers::{Access, Refusal, problem};
use super::{Hub, Inner, RunDetails, TestGithub};
use crate::github::DispatchedRun;

/// How many inputs a dispatch may have.
const INPUTS: usize = 25;
/// How many characters they may have together.
const CHARACTERS: usize = 65_535;

impl Hub {
    /// Dispatches the workflow.
    pub(super) fn dispatch(&self, body: &[u8], access: Access) -> Response {
        let mut inner = self.0.lock();
        if access == Access::Read {
            let mut refused = problem(403, "Resource not accessible by personal access token");
            refused.headers_mut().insert(
                "x-accepted-github-permissions",
                axum::http::HeaderValue::from_static("actions=write"),
            );
            return refused;
        }
        let (reference, inputs, asks) = match inner.read(body) {
            Ok(read) => read,
            Err(Refusal(status, why)) => return problem(status, &why),
        };
        if let Some(why) = inner.refusal(&reference, &inputs) {
            return problem(422, &why);
        }
        let mut title = inner.settings.run_name.clone();
        for (name, value) in &inputs {
            title = title.map(|title| title.replace(&format!("{{{name}}}"), value));
        }
        let (title, after) = (
            title.unwrap_or_else(|| "Agent".to_owned()),
            inner.settings.appears_after,
        );
        let id = inner.add_run(title, &reference, inputs.clone(), after, true);
        let told = inner.settings.run_details == RunDetails::Told && asks;
        let answer = if told {
            let api = format!("http://{}{}", inner.address, super::BASE);
            let repo = TestGithub::REPO;
            let page = inner.runs.last().map(super::runs::Run::page);
            let details = json!({
                "workflow_run_id": id,
                "run_url": format!("{api}/repos/{repo}/actions/runs/{id}"),
                "html_url": page,
            });
            super::answers::json(200, &details)
        } else {
            let mut answer = Response::default();
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        };
        let cancel = inner.runs.last().map(|run| run.cancelled.subscribe());
        if let (Some(run), Some(cancel)) = (inner.on_dispatch.clone(), cancel) {
            drop(inner);
            run(DispatchedRun {
                id,
                reference,
                inputs,
                hub: self.clone(),
                cancel,
            });
        }
        answer
    }
}

impl Inner {
    /// The branch, the inputs, and whether it asks for the run.
    fn read(&self, body: &[u8]) -> Result<(String, BTreeMap<String, String>, bool), Refusal> {
        let body = serde_json::from_slice::<Map<String, Value>>(body);
        let body = body.map_err(|_| Refusal(400, "Problems parsing JSON".to_owned()))?;
        for name in body.keys() {
            let known = match (&**name, self.settings.run_details) {
                ("ref" | "inputs", _)
                | ("return_run_details", RunDetails::Told | RunDetails::Ignored) => Ok(()),
                ("return_run_details", RunDetails::Refused(status)) => Err(status),
                _ => Err(422),
            };
            if let Err(status) = known {
                let why = format!("Invalid request.\n\n\"{name}\" is not a permitted key.");
                return Err(Refusal(status, why));
            }
        }
        let Some(reference) = body.get("ref").and_then(Value::as_str) else {
            return Err(Refusal(
                422,
                "Invalid request.\n\n\"ref\" wasn't supplied.".to_owned(),
            ));
        };
        let inputs = body.get("inputs").cloned().unwrap_or_else(|| json!({}));
        let inputs = serde_json::from_value::<BTreeMap<String, String>>(inputs);
        let inputs = inputs.map_err(|_| {
            Refusal(
                422,
                "Invalid request.\n\nFor 'properties/inputs', nil is not an object.".to_owned(),
            )
        })?;
        let asks = body.get("return_run_details") == Some(&Value::Bool(true));
        Ok((reference.to_owned(), inputs, asks))
    }

    /// Why a dispatch is refused.
    fn refusal(&self, reference: &str, inputs: &BTreeMap<String, String>) -> Option<String> {
        let settings = &self.settings;
        if !settings.refs.contains(reference) {
            return Some(format!("No ref found for: {reference}"));
        }
        if settings.workflow_state != "active" {
            return Some("Cannot trigger a 'workflow_dispatch' on a disabled workflow".to_owned());
        }
        if !settings.has_trigger {
            return Some("Workflow does not have 'workflow_dispatch' trigger".to_owned());
        }
        let declared = |name: &&String| !settings.inputs.contains_key(&**name);
        let unknown: Vec<&String> = inputs.keys().filter(declared).collect();
        if !unknown.is_empty() {
            return Some(format!("Unexpected inputs provided: {unknown:?}"));
        }
        if inputs.len() > INPUTS {
            return Some(format!(
                "You may only define up to {INPUTS} `inputs` for a `workflow_dispatch` event"
            ));
        }
        let characters = inputs
            .iter()
            .map(|(name, value)| name.chars().count() + value.chars().count());
        if characters.sum::<usize>() > CHARACTERS {
            return Some("inputs are too large.".to_owned());
        }
        let mut required = settings.inputs.iter().filter(|(_, required)| **required);
        let missing = required.find(|(name, _)| inputs.get(*name).is_none_or(String::is_empty));
        missing.map(|(name, _)| format!("Required input '{name}' not provided"))
    }
}
