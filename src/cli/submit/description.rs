//! What is to be done: from the command line, from a file, or from standard input.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use loom_protocol::work::limits;

use crate::cli::exit::{CliError, CliResult};

/// The name of standard input.
const STDIN: &str = "-";

/// The description that was given: as a word, or as a file; without either what is piped in.
pub(super) fn of(given: (Option<String>, Option<&Path>)) -> CliResult<String> {
    match given {
        (Some(text), _) if text != STDIN => Ok(text),
        (None, Some(path)) if path != Path::new(STDIN) => {
            let shown = path.display();
            let cannot = |error: io::Error| {
                CliError::Usage(format!("--description-file: cannot read {shown}: {error}"))
            };
            read(File::open(path).map_err(cannot)?, &shown.to_string())
        }
        (None, None) if io::stdin().is_terminal() => Err(CliError::Usage(
            "what is to be done? Write it as an argument, name a file with --description-file, or pipe it in"
                .into(),
        )),
        _ => read(io::stdin().lock(), "standard input"),
    }
}

/// All of it, without the line feeds at its end.
fn read(from: impl Read, name: &str) -> CliResult<String> {
    let most = limits::DESCRIPTION;
    let mut bytes = Vec::new();
    // One more than may be there: an endless file is not read to its end.
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(2);
    from.take(bound)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Usage(format!("cannot read {name}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        CliError::Usage(format!(
            "{name} is no text in UTF-8; a description has to be"
        ))
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.len() > most {
        return Err(CliError::Usage(format!(
            "{name} has more than {most} bytes; a description may have so many: give the rest with --context @FILE"
        )));
    }
    if text.trim().is_empty() {
        return Err(CliError::Usage(format!(
            "{name} is empty; write what is to be done"
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_without_the_line_feed_at_its_end() {
        assert_eq!(read("a\nb\n".as_bytes(), "f").unwrap(), "a\nb");
    }

    #[test]
    fn what_cannot_be_a_description_is_named() {
        for (bytes, said) in [
            (vec![b'x'; limits::DESCRIPTION + 1], "more than"),
            (vec![0xff, 0xfe], "UTF-8"),
            (b" \n\n".to_vec(), "empty"),
        ] {
            let error = read(&bytes[..], "f").unwrap_err().to_string();
            assert!(error.starts_with("f ") && error.contains(said), "{error}");
        }
        let endless = read(io::repeat(b'x'), "f").unwrap_err().to_string();
        assert!(endless.contains("more than"), "{endless}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = of((None, Some(Path::new("/no/such/file")))).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"));
    }
}
