//! What a refusal of GitHub means for a target, and what to do about it. Pure.

use loom_protocol::target::GithubActionsConfig;
use reqwest::StatusCode;

/// How much of GitHub's own words is told, in characters.
const TOLD: usize = 300;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A workflow, or its runs.
    Look,
    /// A run, or its jobs.
    LookAtRun,
    /// A dispatch.
    Dispatch,
    /// The end of a run.
    Cancel,
}

impl Asked {
    const fn right(self) -> &'static str {
        match self {
            Self::Look | Self::LookAtRun => "actions: read",
            Self::Dispatch | Self::Cancel => "actions: write",
        }
    }
}

/// The line that a workflow has to have, for the input that carries the id of the start.
pub(super) fn run_name_line(input: &str) -> String {
    format!("run-name: loom ${{{{ inputs.{input} }}}}")
}

/// Why a target can't be started whose inputs don't carry the id.
pub(super) fn no_id(config: &GithubActionsConfig) -> String {
    format!(
        "no input of the target carries the id of a start, by which its run is found again: add {{\"loom_spin_up\": \"{{{{spinUpId}}}}\"}} to its inputs, declare the input loom_spin_up in {}, and write there the line `{}`",
        config.workflow,
        run_name_line("loom_spin_up")
    )
}

/// What a refusal means.
pub(super) fn refusal(
    config: &GithubActionsConfig,
    asked: Asked,
    status: StatusCode,
    said: &str,
) -> String {
    let GithubActionsConfig {
        repo,
        workflow,
        token_env_var: token,
        reference,
        ..
    } = config;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = said.chars().take(TOLD).collect();
    let code = status.as_u16();
    let told = if words.is_empty() {
        format!("status {code}")
    } else {
        format!("status {code}: {words}")
    };
    let lower = said.to_ascii_lowercase();
    let says = |part: &str| lower.contains(part);
    let does = |what: &str| format!("{what} ({told})");
    match code {
        300..=399 => does(&format!(
            "GitHub says that {repo} is elsewhere, where no token is sent: it was renamed or moved; write its new name as repo, or the right address as apiUrl"
        )),
        401 => does(&format!(
            "GitHub does not take the token in the variable {token}: put a valid one there and start the coordinator again"
        )),
        403 => does(&format!(
            "the token in the variable {token} may not do that in {repo}: give it the permission `{}` for that repository (a classic token: the scope `repo`)",
            asked.right()
        )),
        404 if asked == Asked::LookAtRun => does(&format!(
            "the run is not there in {repo}, or the token in the variable {token} may not see it"
        )),
        404 => does(&format!(
            "there is no workflow {workflow} in {repo} that the token in the variable {token} may see: look at repo and workflow, and give the token access to that repository with the permission `{}`",
            asked.right()
        )),
        422 if says("no ref found") => does(&format!(
            "{repo} has no branch or tag {reference:?}: write another ref"
        )),
        422 if says("workflow_dispatch") && says("disabled") => does(&format!(
            "the workflow {workflow} of {repo} is disabled: enable it on the page of its runs"
        )),
        422 if says("workflow_dispatch") => does(&format!(
            "the workflow {workflow} has no trigger `workflow_dispatch` at {reference:?} of {repo}: write `on: workflow_dispatch:` with its inputs into it"
        )),
        422 if says("unexpected input") => does(&format!(
            "the workflow {workflow} does not know an input of the target at {reference:?}: declare it below `on.workflow_dispatch.inputs`, or take it out of the target's inputs"
        )),
        422 if says("required input") => does(&format!(
            "the workflow {workflow} needs an input that the target does not give: add it to the target's inputs"
        )),
        _ => does(&format!(
            "GitHub does not do that for {workflow} of {repo}: look at repo, workflow, ref and inputs of the target, and at apiUrl"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let config = GithubActionsConfig {
            repo: "o/r".to_owned(),
            workflow: "w.yml".to_owned(),
            token_env_var: "MY_TOKEN".to_owned(),
            ..GithubActionsConfig::default()
        };
        for (asked, status, said, words) in [
            (Asked::Look, 301, "Moved Permanently", "new name as repo"),
            (Asked::Look, 401, "Bad credentials", "MY_TOKEN"),
            (
                Asked::Dispatch,
                403,
                "Resource not accessible",
                "`actions: write`",
            ),
            (
                Asked::Look,
                403,
                "Resource not accessible",
                "`actions: read`",
            ),
            (
                Asked::Dispatch,
                404,
                "Not Found",
                "no workflow w.yml in o/r",
            ),
            (Asked::LookAtRun, 404, "Not Found", "the run is not there"),
            (
                Asked::Dispatch,
                422,
                "No ref found for: main",
                "write another ref",
            ),
            (
                Asked::Dispatch,
                422,
                "Workflow does not have 'workflow_dispatch' trigger",
                "`on: workflow_dispatch:`",
            ),
            (
                Asked::Dispatch,
                422,
                "Cannot trigger a 'workflow_dispatch' on a disabled workflow",
                "enable it",
            ),
            (
                Asked::Dispatch,
                422,
                "Unexpected inputs provided: [\"x\"]",
                "on.workflow_dispatch.inputs",
            ),
            (
                Asked::Dispatch,
                422,
                "Required input 'x' not provided",
                "add it to the target's inputs",
            ),
            (Asked::Dispatch, 418, "", "apiUrl"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let text = refusal(&config, asked, status, said);
            assert!(text.contains(words) && text.contains(said), "{text}");
            assert!(text.contains(status.as_str()), "{text}");
        }
        let long = refusal(
            &config,
            Asked::Look,
            StatusCode::IM_A_TEAPOT,
            &"x\n".repeat(9999),
        );
        assert!(long.len() < 600);
        let text = no_id(&config);
        assert!(text.contains("{{spinUpId}}"), "{text}");
        assert!(
            text.contains("`run-name: loom ${{ inputs.loom_spin_up }}`"),
            "{text}"
        );
    }
}
