//! What happens just now: bars that move in a terminal, a line per finished item elsewhere.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loom_protocol::WorkId;
use loom_protocol::work::{WorkItem, WorkStatus};

use super::plan::ROLES;
use super::report::{running, seconds, waited};
use crate::cli::output::{beside, cell};

/// Shows the work on stderr.
#[derive(Debug)]
pub struct Display {
    screen: Option<Screen>,
    told: HashSet<WorkId>,
    total: usize,
}

#[derive(Debug)]
struct Screen {
    bars: MultiProgress,
    whole: ProgressBar,
    agents: Vec<ProgressBar>,
}

impl Display {
    /// A display of so many items.
    pub fn new(total: usize) -> Self {
        let screen = io::stderr().is_terminal().then(|| Screen::new(total));
        Self {
            screen,
            told: HashSet::new(),
            total,
        }
    }

    /// Shows how the items stand.
    pub fn show(&mut self, items: &[WorkItem]) {
        if let Some(screen) = &self.screen {
            screen.show(items);
        } else {
            self.tell(items);
        }
    }

    /// Leaves the last picture standing.
    pub fn finish(self) {
        if let Some(screen) = self.screen {
            for bar in screen.agents {
                bar.finish_and_clear();
            }
            screen.whole.finish();
            drop(screen.bars);
        }
    }

    fn tell(&mut self, items: &[WorkItem]) {
        let mut ended: Vec<&WorkItem> = items
            .iter()
            .filter(|item| item.terminal && !self.told.contains(&item.id))
            .collect();
        ended.sort_by_key(|item| item.updated_at);
        for item in ended {
            self.told.insert(item.id);
            let agent = item.assigned_to_agent.as_ref().map_or("-", |a| &a.handle);
            beside(&format!(
                "{:>2}/{} {:<9} {:<6} priority {:>2}  waited {:>5}  ran {:>5}  {}",
                self.told.len(),
                self.total,
                item.status.as_str(),
                cell(agent, 16),
                item.priority,
                waited(item).map(seconds).unwrap_or_default(),
                running(item).map(seconds).unwrap_or_default(),
                cell(&item.description, 40),
            ));
        }
    }
}

impl Screen {
    fn new(total: usize) -> Self {
        // A template that cannot be read would leave the bar in its default style.
        let style = |template| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let bars = MultiProgress::new();
        let whole = bars.add(ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX)));
        whole.set_style(style("{elapsed:>4} {bar:30} {pos}/{len} done  {msg}"));
        let agents = ROLES
            .iter()
            .map(|role| {
                let bar = bars.add(ProgressBar::new(100));
                bar.set_style(style("     {prefix:8} {bar:12} {msg}"));
                bar.set_prefix(role.handle);
                bar
            })
            .collect();
        Self {
            bars,
            whole,
            agents,
        }
    }

    fn show(&self, items: &[WorkItem]) {
        let count = |status| items.iter().filter(|item| item.status == status).count();
        let ended = items.iter().filter(|item| item.terminal).count();
        self.whole.set_position(u64::try_from(ended).unwrap_or(0));
        self.whole
            .set_message(format!("{} waiting", count(WorkStatus::Pending)));
        for (role, bar) in ROLES.iter().zip(&self.agents) {
            let current = items.iter().find(|item| {
                let agent = item.assigned_to_agent.as_ref();
                item.status.is_leased() && agent.is_some_and(|agent| agent.handle == role.handle)
            });
            bar.set_position(current.map_or(0, percent));
            bar.set_message(current.map_or_else(
                || "-".to_owned(),
                |item| {
                    let description = cell(&item.description, 36);
                    format!("[{}] {description} ({})", item.priority, item.capability)
                },
            ));
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is cut to 0 to 100 before"
)]
fn percent(item: &WorkItem) -> u64 {
    item.progress.unwrap_or(0.0).clamp(0.0, 100.0) as u64
}

/// How often the picture changes.
pub const PERIOD: Duration = Duration::from_millis(200);
