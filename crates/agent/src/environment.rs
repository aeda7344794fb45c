//! The variables that a program finds.

use std::path::Path;

use loom_client::{ClientOptions, Credentials, Job};
use loom_protocol::AgentGuid;

use super::{feedback, socket};

/// What is said to the agent and not to its program.
pub const WITHHELD: [&str; 3] = ["LOOM_TICKET", "LOOM_SPIN_UP_ID", "LOOM_END_WITH_PID"];
/// What leads to NATS and to the API. A program that Loom understands needs none of it: `loom work …` inside speaks to
/// its agent by a [`socket`].
const CONNECTION: [&str; 9] = [
    "NATS_URL",
    "LOOM_NATS_URL",
    "NATS_USER",
    "NATS_PASS",
    "NATS_CREDS",
    "LOOM_API_URL",
    "LOOM_API_TOKEN",
    "API_TOKENS",
    "LOOM_CONFIG",
];
/// How the variables begin that set a key of the configuration, the address of NATS among them.
const OF_CONFIGURATION: &str = "LOOM__";
/// The keys that the programs that Loom understands may be signed in by.
const KEYS: [&str; 13] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "CODEX_API_KEY",
    "OPENAI_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "COPILOT_GITHUB_TOKEN",
    "GH_TOKEN",
    "GITHUB_TOKEN",
    "GITHUB_PERSONAL_ACCESS_TOKEN",
];
/// The most that one variable may hold, in bytes; the system refuses a program with longer ones.
const LONGEST: usize = 96 * 1024;

/// What is the same for all items: who the agent is, and how a program that speaks NATS itself reaches it.
pub fn of_agent(
    guid: AgentGuid,
    instance_id: &str,
    handle: &str,
    options: &ClientOptions,
) -> Vec<(String, String)> {
    let mut variables = vec![
        ("LOOM_AGENT_GUID".into(), guid.to_string()),
        ("LOOM_AGENT_INSTANCE_ID".into(), instance_id.into()),
        ("LOOM_AGENT_HANDLE".into(), handle.into()),
        ("LOOM_PROJECT_ID".into(), options.project.to_string()),
        ("LOOM_NATS_URL".into(), options.url.clone()),
    ];
    match &options.credentials {
        Credentials::UserPassword(user, password) => {
            variables.push(("NATS_USER".into(), user.clone()));
            variables.push(("NATS_PASS".into(), password.clone()));
        }
        Credentials::File(path) => {
            variables.push(("NATS_CREDS".into(), path.to_string_lossy().into_owned()));
        }
        _ => {}
    }
    variables
}

/// What a program that Loom understands, and the hooks around it, do not find: all but what is passed on by its name.
pub fn withheld(passed: &[String]) -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let of_configuration = names.filter(|name| name.starts_with(OF_CONFIGURATION));
    let all = CONNECTION.into_iter().chain(KEYS).map(str::to_owned);
    all.chain(of_configuration)
        .filter(|name| !passed.contains(name))
        .collect()
}

/// Whether what a variable holds is secret, by its name.
pub fn is_key(name: &str) -> bool {
    const WORDS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL"];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// The keys among what is withheld that this process has.
pub fn withheld_keys(withheld: &[String]) -> Vec<&str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let names = withheld.iter().map(String::as_str);
    names
        .filter(|name| KEYS.contains(name))
        .filter(is_set)
        .collect()
}

/// What is told of one item: its directory, its socket, and the file of its description among it.
/// What is too long for a variable, or has a NUL byte, is left out: it can be read by `--stdin json`, and
/// the description from its file.
pub fn of_item(job: &Job, files: [Option<&Path>; 3]) -> Vec<(String, String)> {
    let item = job.item();
    let [workdir, socket, description_file] =
        files.map(|path| path.map(|path| path.to_string_lossy().into_owned()));
    let context = item.context_data.as_ref();
    let context = context.map(|body| String::from_utf8_lossy(body.as_bytes()).into_owned());
    let labels = serde_json::to_string(&item.labels).ok();
    let told = [
        ("LOOM_WORK_ITEM_ID", Some(item.id.to_string())),
        ("LOOM_WORK_ATTEMPT", Some(job.attempt().to_string())),
        ("LOOM_WORK_TASK_ID", Some(item.task_id.clone())),
        ("LOOM_WORK_CAPABILITY", Some(item.capability.clone())),
        ("LOOM_WORK_BOUNDARY", Some(item.boundary.clone())),
        ("LOOM_WORK_PRIORITY", Some(item.priority.to_string())),
        ("LOOM_WORK_DESCRIPTION", Some(item.description.clone())),
        ("LOOM_WORK_DESCRIPTION_FILE", description_file),
        ("LOOM_WORK_LABELS", labels),
        ("LOOM_WORK_CONTEXT", context),
        ("LOOM_WORK_FEEDBACK", Some(feedback::text(item))),
        ("LOOM_WORK_DIR", workdir),
        (socket::VARIABLE, socket),
    ];
    told.into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .filter(|(_, value)| value.len() <= LONGEST && !value.contains('\0'))
        .collect()
}
