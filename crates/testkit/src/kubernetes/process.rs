//! Containers as processes, and their logs.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use loom_process::group::{Group, Pipes};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Duration;

use super::server::Asked;
use super::status::Status;
use super::store::{Kind, Store};
use super::{World, validate};

/// What a container has said, and whether that is all.
#[derive(Clone)]
pub(super) struct Log {
    said: Arc<Mutex<Vec<u8>>>,
    grown: watch::Sender<usize>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            said: Arc::default(),
            grown: watch::Sender::new(0),
        }
    }

    pub(super) fn push(&self, more: &[u8]) {
        self.said.lock().extend_from_slice(more);
        self.grown.send_modify(|count| *count += 1);
    }
}

/// The variables of a container: those of its Secrets, then its own, in which `$(NAME)` is replaced.
///
/// # Errors
/// A Secret is missing, as a kubelet says it.
pub(super) fn variables(
    store: &Store,
    namespace: &str,
    container: &Value,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let name = validate::text(source, "/secretRef/name");
        let secret = store.get(&(Kind::Secret, namespace.to_owned(), name.clone()));
        let secret = secret.ok_or_else(|| format!("secret {name:?} not found"))?;
        for (name, value) in secret["data"].as_object().into_iter().flatten() {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            variables.insert(name.clone(), text);
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = expanded(&validate::text(variable, "/value"), &variables);
        variables.insert(validate::text(variable, "/name"), value);
    }
    Ok(variables)
}

/// A text with `$(NAME)` replaced where there is such a variable; `$$` is `$`.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            match variables.get(name) {
                Some(value) => done.push_str(value),
                None => done.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            done.push('$');
        }
    }
    done + rest
}

/// How long the pipes of what has ended are read.
const READ_ON: Duration = Duration::from_secs(1);

/// A container that runs.
pub(super) struct Container {
    pub(super) group: Group,
    reading: JoinSet<()>,
}

impl Container {
    /// Waits until all that it has said is in its log.
    pub(super) async fn drain(mut self) {
        let reading = async { while self.reading.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(READ_ON, reading).await;
    }
}

/// Starts a container. It sees nothing of this process's variables but where programs are.
///
/// # Errors
/// It can't be started, as a kubelet says it.
pub(super) async fn start(
    container: &Value,
    variables: &BTreeMap<String, String>,
    log: &Log,
) -> Result<Container, String> {
    let words = ["command", "args"].into_iter().flat_map(|field| {
        let words = container[field].as_array().into_iter().flatten();
        words.map(|word| expanded(word.as_str().unwrap_or_default(), variables))
    });
    let words: Vec<String> = words.collect();
    let Some((program, args)) = words.split_first() else {
        return Err("no command specified".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables);
    let started = Group::spawn(command, false, None).await;
    let (group, Pipes { stdout, stderr, .. }) = started.map_err(|error| error.to_string())?;
    let mut reading = JoinSet::new();
    for from in [stdout, stderr] {
        reading.spawn(copy(from, log.clone()));
    }
    Ok(Container { group, reading })
}

async fn copy(mut from: pipe::Receiver, log: Log) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => log.push(&chunk[..read]),
        }
    }
}

/// The exit status as a container's.
pub(super) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let by_signal = || status.signal().map_or(1, |signal| 128 + signal);
    status.code().unwrap_or_else(by_signal)
}

/// Answers with a log; with `follow` until its pod has ended.
pub(super) fn log(world: &Arc<World>, asked: &Asked) -> Result<Response<Body>, Status> {
    let name = asked.name.clone().unwrap_or_default();
    let key = (Kind::Pod, asked.namespace.clone(), name.clone());
    if world.store.lock().get(&key).is_none() {
        return Err(Status::not_found(Kind::Pod, &name));
    }
    let log = world.rules.lock().logs.get(&name).cloned();
    let Some(log) = log else {
        return Err(Status::bad_request(format!(
            "container \"agent\" in pod {name:?} is waiting to start: ContainerCreating"
        )));
    };
    let said = log.said.lock().clone();
    let lines = asked
        .query("tailLines")
        .and_then(|lines| lines.parse().ok());
    let tail = last_lines(&said, lines.unwrap_or(usize::MAX)).to_vec();
    if asked.query("follow") != Some("true") {
        return Ok(Response::new(Body::from(tail)));
    }
    let follows = (world.clone(), key, log, said.len(), Some(tail));
    let chunks =
        futures_util::stream::unfold(follows, |(world, key, log, mut at, tail)| async move {
            if let Some(tail) = tail {
                let chunk = Ok::<_, std::io::Error>(Bytes::from(tail));
                return Some((chunk, (world, key, log, at, None)));
            }
            let mut grown = log.grown.subscribe();
            let mut changes = world.store.lock().changes();
            loop {
                let more = log.said.lock()[at..].to_vec();
                if !more.is_empty() {
                    at += more.len();
                    return Some((Ok(Bytes::from(more)), (world, key, log, at, None)));
                }
                let runs = world.store.lock().get(&key).is_some_and(|pod| {
                    let phase = validate::text(pod, "/status/phase");
                    phase == "Running"
                        && pod
                            .pointer("/status/containerStatuses/0/state/terminated")
                            .is_none()
                });
                if !runs {
                    return None;
                }
                tokio::select! {
                    _ = grown.changed() => {}
                    _ = changes.changed() => {}
                }
            }
        });
    Ok(Response::new(Body::from_stream(chunks)))
}

fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let begin = ends
        .map(|(at, _)| at + 1)
        .rev()
        .nth(lines.saturating_sub(1));
    &text[begin.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_kubernetes_does() {
        let known = BTreeMap::from([("A".to_owned(), "x y".to_owned())]);
        for (text, expected) in [
            ("$(A)", "x y"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $ $$", "$A $ $"),
            ("a$", "a$"),
        ] {
            assert_eq!(expanded(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn the_last_lines_are_the_last_lines() {
        for (text, lines, tail) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb", 1, "b"),
            ("a", 5, "a"),
            ("", 1, ""),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), tail.as_bytes());
        }
    }
}
