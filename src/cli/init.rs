//! `loom init`: the block in `AGENTS.md` and `CLAUDE.md` by which agents in a directory know how to use Loom.
//!
//! What stands between the marks of the block is Loom's, everything else is left byte for byte as it was. Done again it
//! brings the block up to date, and changes nothing where it is.
//!
//! | case | what happens |
//! |---|---|
//! | no file | `AGENTS.md` is made; `CLAUDE.md` only where it is named |
//! | `CLAUDE.md` is there | it gets the block too, unless it takes `AGENTS.md` in (`@AGENTS.md`) or is the same file |
//! | a mark without the other one, or two blocks | refused with the line: what is whose is not known |
//! | a file that is no UTF-8, over 1 MiB, a directory, or not writable | refused, and no other file is written either, as far as that is seen before |
//! | it is stopped in the middle | each file is replaced at once, or not at all |

mod block;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::Context;
use super::exit::{CliError, CliResult};

/// The most that a file of instructions may have, in bytes.
const MOST: u64 = 1 << 20;
/// The file that every program reads, and the one of Claude Code.
const DEFAULTS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];

/// Write into AGENTS.md and CLAUDE.md how agents here use Loom.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The files; without any AGENTS.md, and CLAUDE.md if it is there, of the working directory.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print the block, and write nothing.
    #[arg(long, conflicts_with_all = ["files", "check", "remove"])]
    print: bool,
    /// Write nothing; exit 1 where a file has no block, or an old one.
    #[arg(long)]
    check: bool,
    /// Take the block out again.
    #[arg(long, conflicts_with = "check")]
    remove: bool,
}

/// What became of a file, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Made,
    Added,
    Updated,
    Removed,
    Unchanged,
}

#[derive(Debug, Serialize)]
struct Written {
    file: String,
    outcome: Outcome,
}

/// A file as it is, and as it is to be.
struct Plan {
    shown: PathBuf,
    /// Where it really lies: a link is written through.
    at: PathBuf,
    text: String,
    outcome: Outcome,
}

/// Does it.
///
/// # Errors
/// A file cannot be read, understood or written; with `--check`, one is not up to date.
pub fn run(context: &Context, args: &InitArgs) -> CliResult {
    if args.print {
        return context.out.text(block::whole("\n").trim_end());
    }
    let files = files(args)?.into_iter();
    let plans: Vec<Plan> = files
        .map(|file| plan(file, args.remove))
        .collect::<CliResult<_>>()?;
    let mut written: Vec<Written> = Vec::new();
    for plan in plans {
        let is_due = plan.outcome != Outcome::Unchanged;
        if is_due && !args.check {
            replace(&plan.at, &plan.text)
                .map_err(|error| cannot("written", &plan.shown, &error))?;
        }
        written.push(Written {
            file: plan.shown.display().to_string(),
            outcome: plan.outcome,
        });
    }
    tell(context, &written, args.check)?;
    let is_current = written.iter().all(|it| it.outcome == Outcome::Unchanged);
    if args.check && !is_current {
        return Err(CliError::WorkFailed);
    }
    Ok(())
}

fn tell(context: &Context, written: &[Written], check: bool) -> CliResult {
    if context.out.is_json() {
        return context.out.json(&written);
    }
    for Written { file, outcome } in written {
        let what = match (outcome, check) {
            (Outcome::Unchanged, _) => "is as it should be",
            (_, true) => "has no block of this version: `loom init` writes it",
            (Outcome::Made, _) => "made",
            (Outcome::Added, _) => "has the block now; the rest is as it was",
            (Outcome::Updated, _) => "has the block of this version now",
            (Outcome::Removed, _) => "has the block no more",
        };
        context.out.text(&format!("{file}: {what}"))?;
    }
    Ok(())
}

/// Those that are meant, each once: of two names of one file the first.
fn files(args: &InitArgs) -> CliResult<Vec<PathBuf>> {
    let named = if args.files.is_empty() {
        let [all, claude] = DEFAULTS.map(PathBuf::from);
        let mut named = vec![all];
        if fs::metadata(&claude).is_ok() && !takes_in(&claude, DEFAULTS[0]) {
            named.push(claude);
        }
        named
    } else {
        args.files.clone()
    };
    let mut seen = Vec::new();
    let mut files = Vec::new();
    for file in named {
        let at = target_of(&file).map_err(|error| cannot("read", &file, &error))?;
        if !seen.contains(&at) {
            seen.push(at);
            files.push(file);
        }
    }
    Ok(files)
}

/// Whether a file has another one read in its place.
fn takes_in(file: &Path, other: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let import = format!("@{other}");
    let relative = format!("@./{other}");
    text.split_whitespace()
        .any(|word| word == import || word == relative)
}

/// Where a file lies, or would: behind its links, also where the last of them leads to nothing yet.
fn target_of(file: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Ok(link) = fs::read_link(file) {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("it is a link to {}, which is not there", link.display()),
                ));
            }
            let name = file.file_name().ok_or(error)?;
            let parent = file.parent().filter(|it| !it.as_os_str().is_empty());
            Ok(fs::canonicalize(parent.unwrap_or_else(|| Path::new(".")))?.join(name))
        }
        known => known,
    }
}

fn plan(file: PathBuf, remove: bool) -> CliResult<Plan> {
    let at = target_of(&file).map_err(|error| cannot("read", &file, &error))?;
    let before = match fs::metadata(&at) {
        Ok(about) if !about.is_file() => {
            let text = format!("{} is no file; name one", file.display());
            return Err(CliError::Usage(text));
        }
        Ok(about) if about.len() > MOST => {
            let text = format!(
                "{} has {} bytes, and instructions have at most {MOST}; name another file",
                file.display(),
                about.len()
            );
            return Err(CliError::Usage(text));
        }
        Ok(_) => Some(fs::read_to_string(&at).map_err(|error| cannot("read", &file, &error))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(cannot("read", &file, &error)),
    };
    let text = before.as_deref().unwrap_or_default();
    let changed = if remove {
        block::without(text)
    } else {
        block::with(text)
    };
    let changed =
        changed.map_err(|broken| CliError::Usage(format!("{}: {broken}", file.display())))?;
    let outcome = match (&before, &changed) {
        (_, None) => Outcome::Unchanged,
        (_, Some(_)) if remove => Outcome::Removed,
        (None, Some(_)) => Outcome::Made,
        (Some(before), Some(_)) if block::is_in(before) => Outcome::Updated,
        (Some(_), Some(_)) => Outcome::Added,
    };
    let text = changed.unwrap_or_default();
    Ok(Plan {
        shown: file,
        at,
        text,
        outcome,
    })
}

/// Replaces a file at once, with the permissions that it had.
fn replace(at: &Path, text: &str) -> io::Result<()> {
    let parent = at.parent().unwrap_or_else(|| Path::new("."));
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    let half = parent.join(format!(".{name}.loom-{}", std::process::id()));
    let written = write_anew(&half, text).and_then(|()| {
        if let Ok(about) = fs::metadata(at) {
            // A file that nobody may write is not replaced either.
            if about.permissions().readonly() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            fs::set_permissions(&half, about.permissions())?;
        }
        fs::rename(&half, at)
    });
    if written.is_err() {
        let _ = fs::remove_file(&half);
    }
    written
}

fn write_anew(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn cannot(what: &str, file: &Path, error: &io::Error) -> CliError {
    let remedy = match error.kind() {
        io::ErrorKind::InvalidData => "it is no UTF-8; convert it",
        io::ErrorKind::PermissionDenied => "look at its permissions",
        io::ErrorKind::StorageFull => "make room on the disk",
        _ => "name another file, or mend that",
    };
    CliError::Failed(format!(
        "{} cannot be {what}: {error}; {remedy}",
        file.display()
    ))
}
