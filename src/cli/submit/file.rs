//! `loom submit -f`: all lines are checked, then sent in arrays; a second run changes nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use loom_protocol::work::{BatchAnswer, ItemAnswer, SubmitAnswer, WorkItem, WorkStatus, limits};
use loom_protocol::{ErrorCode, WorkId};
use serde_json::value::to_raw_value;

use super::answers::{Answers, Rejects};
use super::ids::{LineIds, NamedIds, SeenLines};
use super::send::patiently;
use crate::api_client::ApiClient;
use crate::cli::Context;
use crate::cli::exit::{CliError, CliResult};
use crate::cli::output::{cell, note};
use crate::cli::show::outcome;
use crate::cli::tasks_file::{Fields, Line, TasksFile};
use crate::cli::watch;

/// How many bytes of items go into one request: well under what the door takes.
const BATCH_BYTES: usize = 768 * 1024;
/// What becomes of the ids that nobody reads.
const IDS_ARE_LOST: &str = "the same command again prints the ids";
/// How many problems are told at a time.
const MOST_PROBLEMS: usize = 20;

/// What to do with a file.
#[derive(Debug)]
pub(super) struct FileArgs<'a> {
    pub path: &'a Path,
    /// What every line gets that it lacks.
    pub flags: Fields,
    pub batch: Option<&'a str>,
    pub rejects: Option<&'a PathBuf>,
    pub wait: bool,
}

/// One line on its way.
struct Item {
    number: usize,
    bytes: Range<u64>,
    id: Option<WorkId>,
    fields: Fields,
}

/// A file that was checked.
struct Checked {
    file: TasksFile,
    total: usize,
    batch: String,
    digest: String,
    ids: LineIds,
}

/// Where the submitting stands.
struct Run<'a> {
    args: &'a FileArgs<'a>,
    api: ApiClient,
    checked: Checked,
    answers: Answers,
    /// Of all items that are there, where they are waited for.
    waited_for: Vec<WorkId>,
    reached: bool,
    in_flight: usize,
}

/// Submits what is in a file, and waits where that was asked for.
pub(super) async fn submit(context: &Context, args: &FileArgs<'_>) -> CliResult {
    let checked = check(args)?;
    if args.rejects.is_some_and(|path| checked.file.is_at(path)) {
        return Err(CliError::Usage(
            "--rejects names the file that is submitted".into(),
        ));
    }
    let rejects = args.rejects.map(|path| Rejects::create(path)).transpose()?;
    let mut run = Run {
        args,
        api: context.api()?,
        answers: Answers::new(context.out.doing(IDS_ARE_LOST), checked.total, rejects),
        checked,
        waited_for: Vec::new(),
        reached: false,
        in_flight: 0,
    };
    let sent = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        sent = run.send_all() => sent,
    };
    let unfinished = sent.is_err();
    if unfinished {
        run.say_how_to_go_on();
    }
    let waited = if args.wait && !unfinished {
        run.wait(context).await
    } else {
        Ok(())
    };
    let (batch, total) = (run.checked.batch.clone(), run.checked.total);
    run.answers.finish(&batch, total)?;
    sent?;
    let (sums, name) = (run.answers.sums, run.checked.file.name());
    note(&format!("{name}: {}; batch {batch}", sums.sentence()));
    if let Some(code) = run.answers.first_refusal {
        let message = format!("{} of {total} items were refused", sums.refused);
        return Err(CliError::Refused(code, message));
    }
    waited
}

/// The item of a line, where it may be submitted beside those before it.
fn item_of(line: &Line, flags: &Fields, named: &mut NamedIds) -> Result<Fields, String> {
    let fields = line.item(flags)?;
    named.note(line.number, &fields)?;
    Ok(fields)
}

/// Reads the whole file and checks every line.
fn check(args: &FileArgs<'_>) -> CliResult<Checked> {
    let shown = args.path.display();
    let unreadable = |error| CliError::Usage(format!("cannot read {shown}: {error}"));
    let mut file = TasksFile::open(args.path).map_err(unreadable)?;
    let (mut seen, mut named, mut total) = (SeenLines::default(), NamedIds::default(), 0);
    let (mut problems, mut bad) = (Vec::new(), 0);
    while let Some(line) = file.next_line().map_err(unreadable)? {
        total += 1;
        if let Ok(text) = &line.text {
            seen.note(text);
        }
        if let Err(problem) = item_of(&line, &args.flags, &mut named) {
            bad += 1;
            if bad <= MOST_PROBLEMS {
                problems.push(format!("{}{problem}", file.place(line.number)));
            }
        }
    }
    if total == 0 {
        let name = file.name();
        let message = format!("{name} holds no items; write one JSON object per line");
        return Err(CliError::Usage(message));
    }
    if bad > 0 && args.rejects.is_none() {
        if bad > problems.len() {
            problems.push(format!("and {} more", bad - problems.len()));
        }
        return Err(CliError::Usage(format!(
            "nothing was submitted: {bad} of {total} items are refused; mend them, or put them aside with --rejects FILE\n{}",
            problems.join("\n")
        )));
    }
    let digest = file.rewind().map_err(unreadable)?;
    let batch = args.batch.map_or_else(|| digest.clone(), Into::into);
    Ok(Checked {
        ids: seen.ids(&batch),
        file,
        total,
        batch,
        digest,
    })
}

impl Run<'_> {
    async fn send_all(&mut self) -> CliResult {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut named = NamedIds::default();
        while let Some(line) = self.checked.file.next_line()? {
            let place = self.checked.file.place(line.number);
            let fields = match item_of(&line, &self.args.flags, &mut named) {
                Ok(fields) => fields,
                Err(why) => {
                    // It has an id all the same: those that say the same after it keep theirs.
                    if let Ok(text) = &line.text {
                        self.checked.ids.next(text);
                    }
                    let code = ErrorCode::InvalidRequest;
                    self.refused(&place, &line.bytes, code, &why)?;
                    continue;
                }
            };
            let item = self.item(line, fields)?;
            let size = size(&item.fields);
            if batch.len() == limits::ITEMS || bytes + size > BATCH_BYTES && !batch.is_empty() {
                self.send(&std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += size;
            batch.push(item);
        }
        if !batch.is_empty() {
            self.send(&batch).await?;
        }
        self.answers.print::<SubmitAnswer>(&[], &[])?;
        if self.checked.file.rewind()? != self.checked.digest {
            let name = self.checked.file.name();
            return Err(CliError::Failed(format!(
                "{name} was written to while it was submitted; submit it once more with --batch {}",
                self.checked.batch
            )));
        }
        Ok(())
    }

    /// A line was refused, here or by the coordinator: it is put aside as it stands in the file.
    fn refused(
        &mut self,
        place: &str,
        bytes: &Range<u64>,
        code: ErrorCode,
        why: &str,
    ) -> CliResult {
        let file = &self.checked.file;
        self.answers
            .refused(place, code, why, |to| file.copy(bytes, to))
    }

    fn item(&mut self, line: Line, mut fields: Fields) -> CliResult<Item> {
        let derived = self
            .checked
            .ids
            .next(line.text.as_deref().unwrap_or_default());
        let mut id = None;
        if !fields.contains_key("id") {
            let raw =
                to_raw_value(&derived).map_err(|error| CliError::Failed(error.to_string()))?;
            fields.insert("id".into(), raw);
            id = Some(derived);
        }
        Ok(Item {
            number: line.number,
            bytes: line.bytes,
            id,
            fields,
        })
    }

    async fn send(&mut self, batch: &[Item]) -> CliResult {
        let items: Vec<&Fields> = batch.iter().map(|item| &item.fields).collect();
        let items = to_raw_value(&items).map_err(|error| CliError::Failed(error.to_string()))?;
        let body = BTreeMap::from([("items", items)]);
        self.in_flight = batch.len();
        let api = &self.api;
        let sent = patiently(self.reached, || {
            api.post::<BatchAnswer<SubmitAnswer>>(&["work"], &body)
        });
        let answered = sent.await.map_err(|given_up| {
            if !given_up.in_doubt {
                self.in_flight = 0;
            }
            CliError::from(given_up.error)
        })?;
        self.reached = true;
        let answers = answered.answer.items;
        if answers.len() != batch.len() {
            return Err(CliError::Failed(format!(
                "the coordinator answered to {} of {} items; look with `loom work`",
                answers.len(),
                batch.len()
            )));
        }
        self.in_flight = 0;
        let mut ids = Vec::with_capacity(answers.len());
        for (item, answer) in batch.iter().zip(&answers) {
            let place = self.checked.file.place(item.number);
            match answer {
                ItemAnswer::Done(answer) => {
                    self.answers.taken(&place, answer, answered.was_in_doubt);
                    ids.push(answer.id.to_string());
                    if self.args.wait {
                        self.waited_for.push(answer.id);
                    }
                }
                ItemAnswer::Refused(error) => {
                    let id = item
                        .id
                        .map(|id| format!(" (item {id})"))
                        .unwrap_or_default();
                    let why = format!("{}{id}", error.message);
                    self.refused(&place, &item.bytes, error.code, &why)?;
                }
            }
        }
        if self.args.wait && self.answers.is_json() {
            return self.answers.print::<SubmitAnswer>(&[], &[]);
        }
        self.answers.print(&ids, &answers)
    }

    fn say_how_to_go_on(&self) {
        let (sums, total) = (self.answers.sums, self.checked.total);
        let unknown = match self.in_flight {
            0 => String::new(),
            count => format!("; of {count} more it is not known"),
        };
        let path = self.args.path.display();
        self.answers.say(&format!(
            "{} of {total} items were answered ({}){unknown}. The same command again goes on and doubles nothing; \
             with an edited file so does `loom submit -f {path} --batch {}`",
            sums.answered(),
            sums.sentence(),
            self.checked.batch
        ));
    }

    /// Waits for every item in the order of the file, and says how each has ended.
    async fn wait(&mut self, context: &Context) -> CliResult {
        let ids = std::mem::take(&mut self.waited_for);
        let mut unwell = 0;
        for (place, id) in ids.iter().enumerate() {
            let ended: WorkItem = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => {
                    self.answers.say(&format!(
                        "{place} of {} items have ended; the others go on, and the same command again waits for them",
                        ids.len()
                    ));
                    return Err(CliError::Interrupted);
                }
                ended = watch::wait_for(&self.api, *id) => ended?,
            };
            if ended.status != WorkStatus::Completed {
                unwell += 1;
            }
            if context.out.is_json() {
                self.answers.print(&[], std::slice::from_ref(&ended))?;
            } else {
                let said = cell(outcome(&ended).lines().next().unwrap_or_default(), 80);
                self.answers.say(&format!("{id} {}: {said}", ended.status));
            }
        }
        self.answers.say(&format!(
            "{} completed, {unwell} failed or cancelled",
            ids.len() - unwell
        ));
        if unwell > 0 {
            return Err(CliError::WorkFailed);
        }
        Ok(())
    }
}

fn size(fields: &Fields) -> usize {
    let sizes = fields
        .iter()
        .map(|(name, value)| name.len() + value.get().len() + 4);
    sizes.sum::<usize>() + 3
}
