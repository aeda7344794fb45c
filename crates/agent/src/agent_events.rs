//! What a person who watches `loom agent run` is told beside the log: one line for each thing that
//! happens to the agent.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use loom_client::{AgentNotification, AgentReport, Client};
use loom_protocol::text::{escaped, escaped_lines};
use loom_protocol::work::QueueInfo;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How often it is asked again what waits, while the agent idles.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// Says something on standard error, with what a terminal would obey as escapes: reasons and errors are written by others.
/// Where nobody reads that any more, there is nobody to tell, and the work goes on.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", escaped_lines(text));
}

/// Tells on standard error what happens to one agent. Cheap to clone.
#[derive(Clone)]
pub struct StatusPrinter {
    inner: Arc<Inner>,
}

struct Inner {
    handle: String,
    /// What it may take, in words.
    fits: String,
    client: Client,
    idle: Mutex<Idle>,
}

/// What was said since the agent last had something to do.
#[derive(Default)]
struct Idle {
    asked: Option<Instant>,
    said: Option<String>,
}

impl StatusPrinter {
    /// For the agent `handle`, which takes what is described by `fits`.
    pub fn new(handle: String, fits: String, client: Client) -> Self {
        Self {
            inner: Arc::new(Inner {
                handle,
                fits,
                client,
                idle: Mutex::default(),
            }),
        }
    }

    /// Prints what there is to say of it.
    pub fn print(&self, event: AgentNotification) {
        match event {
            AgentNotification::Idle => self.look_why_idle(),
            other => {
                if let Some(line) = line(&other) {
                    // A reason is one line, however many it was written as.
                    let line = escaped(&line);
                    say(&format!("agent {} {line}", self.inner.handle));
                }
            }
        }
    }

    /// The agent has begun an item: what is said of the next idleness is new.
    pub fn begun(&self) {
        self.inner.idle.lock().said = None;
    }

    /// Asks what waits, now and then, and says so where that is something new.
    fn look_why_idle(&self) {
        {
            let mut idle = self.inner.idle.lock();
            if idle.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) && idle.said.is_some() {
                return;
            }
            idle.asked = Some(Instant::now());
        }
        let printer = self.clone();
        tokio::spawn(async move {
            let inner = &printer.inner;
            let nothing = serde_json::json!({});
            let queue = inner.client.request::<QueueInfo>("queue.info", &nothing);
            match queue.await {
                Ok(queue) => printer.say_idle(waiting(&queue, &inner.fits)),
                Err(error) => tracing::debug!(%error, "nobody says what waits"),
            }
        });
    }

    fn say_idle(&self, line: String) {
        let mut idle = self.inner.idle.lock();
        if idle.said.as_ref() != Some(&line) {
            say(&format!("agent {} {line}", self.inner.handle));
            idle.said = Some(line);
        }
    }
}

/// What is said of it, after the agent's name.
fn line(event: &AgentNotification) -> Option<String> {
    match event {
        AgentNotification::Paused(why) => Some(format!("takes no work for now: {why}")),
        AgentNotification::Suspended(why) => Some(format!(
            "takes no work for now: {why}; it is tried again until that works"
        )),
        AgentNotification::Waiting(why) => Some(format!(
            "waits: {why}; it is tried again until somebody answers"
        )),
        AgentNotification::Resumed => Some("takes work again".into()),
        AgentNotification::Replaced { running: 0, .. }
        | AgentNotification::ShuttingDown { running: 0, .. } => None,
        AgentNotification::Replaced { running, .. } => {
            let items = match running {
                1 => "its item".into(),
                more => format!("its {more} items"),
            };
            Some(format!(
                "stops {items} and gives nothing back: another run of it has taken its place"
            ))
        }
        AgentNotification::ShuttingDown {
            because,
            grace,
            running,
        } => {
            let items = match running {
                1 => "its item".into(),
                more => format!("its {more} items"),
            };
            Some(if grace.is_zero() {
                format!("stops {items} and gives back what is not done ({because})")
            } else {
                let limit = humantime::format_duration(*grace);
                format!(
                    "takes no more work ({because}); {items} may take {limit} to finish, Ctrl-C or TERM ends it now"
                )
            })
        }
        _ => None,
    }
}

/// Why an agent that takes what `fits` says idles.
fn waiting(queue: &QueueInfo, fits: &str) -> String {
    match queue.pending.values().sum::<usize>() {
        0 => "waits: no work is pending".into(),
        pending => {
            let (items, are) = match pending {
                1 => ("item", "is"),
                _ => ("items", "are"),
            };
            format!(
                "waits: {pending} {items} {are} pending, and none that it may take now ({fits}); `loom work explain ID` says why"
            )
        }
    }
}

/// Says what has become of the agent's items.
pub fn summary_line(report: &AgentReport) -> String {
    let counts = [
        (report.completed, "completed"),
        (report.failed, "failed"),
        (report.settled, "settled by the program"),
        (report.published, "left in the stream for the coordinator"),
        (report.cancelled, "cancelled"),
        (report.returned, "given back"),
        (report.lost, "lost"),
    ];
    let told: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let told = if told.is_empty() {
        "no work came".into()
    } else {
        told.join(", ")
    };
    format!("agent ended ({}): {told}", escaped(&report.because))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_item_is_called_cancelled() {
        let report = AgentReport {
            completed: 2,
            failed: 0,
            settled: 0,
            published: 0,
            returned: 0,
            cancelled: 1,
            lost: 0,
            because: "a signal".into(),
        };
        let expected = "agent ended (a signal): 2 completed, 1 cancelled";
        assert_eq!(summary_line(&report), expected);
    }

    #[test]
    fn the_end_is_told_where_items_run() {
        let end = |grace, running| {
            line(&AgentNotification::ShuttingDown {
                because: "told to".into(),
                grace,
                running,
            })
        };
        let told = end(Duration::from_secs(90), 2).unwrap();
        assert!(
            told.contains("(told to); its 2 items may take 1m 30s"),
            "{told}"
        );
        assert!(
            end(Duration::ZERO, 1)
                .unwrap()
                .starts_with("stops its item")
        );
        assert_eq!(end(Duration::ZERO, 0), None);
    }

    #[test]
    fn idleness_has_a_reason() {
        let mut queue = QueueInfo {
            stream: "S".into(),
            messages: 0,
            pending: std::collections::BTreeMap::new(),
            oldest_pending: None,
        };
        assert_eq!(waiting(&queue, "x"), "waits: no work is pending");
        queue.pending.insert("rust".into(), 1);
        let told = waiting(&queue, "capabilities c");
        assert!(
            told.contains("1 item is pending") && told.contains("(capabilities c)"),
            "{told}"
        );
    }
}
