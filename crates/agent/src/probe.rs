//! Whether a program can be started at all: looked at once at the start, so that an agent without
//! its program takes no work.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::template;

/// Finds the program, and makes its path independent of the directory that it will run in. A path
/// with a placeholder is left for later.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn program(name: &str) -> Result<String, String> {
    if template::has_placeholder(name) {
        return Ok(name.to_owned());
    }
    if name.is_empty() {
        return Err("the name of the program is empty".into());
    }
    if name.contains('/') {
        let path = std::path::absolute(name).map_err(|e| format!("{name:?}: {e}"))?;
        let problem = match (path.is_file(), is_executable(&path)) {
            (true, true) => return Ok(path.to_string_lossy().into_owned()),
            (true, false) => "is not executable; give it the right with chmod +x",
            (false, _) if path.is_dir() => "is a directory",
            (false, _) => "is not there",
        };
        return Err(format!("{} {problem}", path.display()));
    }
    in_path(name)
        .map(|_| name.to_owned())
        .ok_or_else(|| format!("{name:?} is not found in PATH; install it, or give its whole path"))
}

/// Where a program is found by its name.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file() && is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_where_they_are() {
        assert_eq!(program("sh"), Ok("sh".into()));
        assert_eq!(program("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(
            program("/tools/{capability}"),
            Ok("/tools/{capability}".into())
        );
    }

    #[test]
    fn what_is_no_program_is_explained() {
        for (name, hint) in [
            ("no-such-program-here", "PATH"),
            ("./no-such-program-here", "not there"),
            ("/tmp", "directory"),
            ("/etc/passwd", "not executable"),
            ("", "empty"),
        ] {
            let error = program(name).unwrap_err();
            assert!(error.contains(hint), "{name}: {error}");
        }
    }
}
