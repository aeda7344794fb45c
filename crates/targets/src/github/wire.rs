//! What GitHub answers, as far as it is read: fields may be missing, and there are many more.

use loom_protocol::SpinUpId;
use serde::Deserialize;

/// A workflow.
#[derive(Debug, Deserialize)]
pub(super) struct Workflow {
    /// `active`, or why it does not run.
    #[serde(default)]
    pub(super) state: String,
}

/// A page of runs.
#[derive(Debug, Deserialize)]
pub(super) struct Runs {
    #[serde(default)]
    pub(super) workflow_runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Run {
    pub(super) id: u64,
    /// Its `run-name`.
    #[serde(default)]
    display_title: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    conclusion: Option<String>,
    /// Its page.
    #[serde(default)]
    html_url: Option<String>,
}

impl Run {
    /// One of which only the id is known.
    pub(super) const fn told(id: u64) -> Self {
        Self {
            id,
            display_title: None,
            name: None,
            status: None,
            conclusion: None,
            html_url: None,
        }
    }

    /// Whether its name has the id of a start.
    pub(super) fn bears(&self, spin_up: SpinUpId) -> bool {
        let id = spin_up.to_string();
        let names = [&self.display_title, &self.name];
        let mut names = names.into_iter().flatten();
        names.any(|name| name.to_ascii_lowercase().contains(&id))
    }

    /// Whether nothing of it runs any more.
    pub(super) fn is_over(&self) -> bool {
        self.status() == "completed"
    }

    /// Whether it waits for its first job to run.
    pub(super) fn waits(&self) -> bool {
        ["queued", "requested", "waiting", "pending"].contains(&self.status())
    }

    /// Why it has not begun, where it has not.
    pub(super) fn why_it_waits(&self) -> Option<String> {
        self.waits().then(|| {
            format!(
                "{} is {}: no runner has taken it yet",
                self.shown(),
                self.status()
            )
        })
    }

    /// Whether it did what it was to do.
    pub(super) fn succeeded(&self) -> bool {
        self.conclusion.as_deref() == Some("success")
    }

    /// Where it is.
    pub(super) fn status(&self) -> &str {
        self.status.as_deref().unwrap_or("unknown")
    }

    /// How it ended.
    pub(super) fn conclusion(&self) -> &str {
        self.conclusion.as_deref().unwrap_or("no conclusion")
    }

    /// The run and its page, for people.
    pub(super) fn shown(&self) -> String {
        match &self.html_url {
            Some(url) => format!("run {} ({url})", self.id),
            None => format!("run {}", self.id),
        }
    }
}

/// What a dispatch may answer about its run.
#[derive(Debug, Deserialize)]
pub(super) struct Details {
    pub(super) workflow_run_id: u64,
}

/// The jobs of a run.
#[derive(Debug, Deserialize)]
pub(super) struct Jobs {
    #[serde(default)]
    pub(super) jobs: Vec<Job>,
}

/// One job.
#[derive(Debug, Deserialize)]
pub(super) struct Job {
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    conclusion: Option<String>,
    #[serde(default)]
    steps: Option<Vec<JobStep>>,
}

/// A step of a job.
#[derive(Debug, Deserialize)]
struct JobStep {
    #[serde(default)]
    name: String,
    #[serde(default)]
    conclusion: Option<String>,
}

/// What went wrong, in GitHub's words.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(default)]
    pub(super) message: String,
}

/// How a run ended: its jobs, the steps that failed, and last what all of that means and where it is to be seen.
pub(super) fn summary(run: &Run, jobs: &[Job]) -> String {
    let mut lines = Vec::new();
    for job in jobs {
        let state = job.conclusion.as_deref().or(job.status.as_deref());
        let failed = job.steps.iter().flatten().filter(|step| {
            let conclusion = step.conclusion.as_deref();
            conclusion.is_some_and(|how| !["success", "skipped"].contains(&how))
        });
        let failed: Vec<&str> = failed.map(|step| &*step.name).collect();
        let at = match &*failed {
            [] => String::new(),
            failed => format!(", at {}", failed.join(", ")),
        };
        lines.push(format!("{}: {}{at}", job.name, state.unwrap_or("unknown")));
    }
    lines.push(format!("{}: {}", run.shown(), run.conclusion()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_is_known_by_the_whole_id_in_its_name_and_a_summary_says_what_failed() {
        let spin_up = SpinUpId::generate();
        let run = |title: String| {
            let run = json!({"id": 7, "display_title": title, "status": "completed", "conclusion": "failure", "html_url": "https://h/7"});
            serde_json::from_value::<Run>(run).unwrap()
        };
        let id = spin_up.to_string();
        assert!(run(format!("loom {} x", id.to_uppercase())).bears(spin_up));
        assert!(!run(id[..35].to_owned()).bears(spin_up));
        let jobs: Jobs = serde_json::from_value(json!({"jobs": [
            {"name": "one", "conclusion": "success", "steps": [{"name": "a", "conclusion": "success"}]},
            {"name": "two", "conclusion": "failure", "steps": [{"name": "b", "conclusion": "failure"}, {"name": "c", "conclusion": "skipped"}]},
            {"name": "three", "status": "queued", "conclusion": null},
        ]}))
        .unwrap();
        assert_eq!(
            summary(&run(String::new()), &jobs.jobs),
            "one: success\ntwo: failure, at b\nthree: queued\nrun 7 (https://h/7): failure"
        );
        let bare: Run = serde_json::from_value(json!({"id": 1})).unwrap();
        assert!(!bare.is_over() && !bare.waits() && !bare.bears(spin_up));
    }
}
