use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ServerError, ServerOptions, create_dir, file_error};

/// How often a server of our own syncs to the disk what it has acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// With every write: what was acknowledged survives a power cut. Hundreds to some thousand writes a second.
    #[default]
    Safe,
    /// Every 100 ms: a power cut may take the last 100 ms; a crash of the server takes nothing. Tens of thousands of
    /// writes a second.
    Fast,
}

impl Profile {
    /// The value of JetStream's `sync_interval`.
    fn sync_interval(self) -> &'static str {
        match self {
            Self::Safe => "always",
            Self::Fast => "\"100ms\"",
        }
    }
}

/// Writes the configuration file and the folders that it names.
pub(super) fn write(options: &ServerOptions, listen: SocketAddr) -> Result<(), ServerError> {
    let run_dir = options.run_dir();
    create_dir(&options.file("store"))?;
    create_dir(&run_dir)?;
    let path = options.file("nats-server.conf");
    let text = text(options, listen)?;
    fs::write(&path, text).map_err(file_error("write", &path))
}

fn text(options: &ServerOptions, listen: SocketAddr) -> Result<String, ServerError> {
    let mut text =
        String::from("# Written by Loom at every start of this server; changes are lost.\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key}: {value}");
    };
    line("server_name", "loom");
    line("listen", &quoted_text(&listen.to_string()));
    line("ports_file_dir", &quoted(&options.run_dir())?);
    line("log_file", &quoted(&options.log_path())?);
    line("logfile_size_limit", "10MB");
    line("logfile_max_num", "3");
    if let Some(most) = options.max_payload {
        line("max_payload", &most.to_string());
    }
    let store = quoted(&options.file("store"))?;
    let sync = options.profile.sync_interval();
    let _ = writeln!(
        text,
        "jetstream {{\n  store_dir: {store}\n  sync_interval: {sync}\n}}"
    );
    Ok(text)
}

fn quoted(path: &Path) -> Result<String, ServerError> {
    let not_text = || {
        let source = std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "the path is not UTF-8, which a nats-server configuration can't hold",
        );
        file_error("use the folder", path)(source)
    };
    path.to_str().map(quoted_text).ok_or_else(not_text)
}

fn quoted_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn written(profile: Profile) -> String {
        let mut options = ServerOptions::new(PathBuf::new(), PathBuf::from("/a \"b\"\\c"));
        options.profile = profile;
        text(&options, "127.0.0.1:4222".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_profile_decides_how_often_is_synced() {
        assert!(written(Profile::Safe).contains("sync_interval: always\n"));
        assert!(written(Profile::Fast).contains("sync_interval: \"100ms\"\n"));
    }

    #[test]
    fn a_path_with_quotes_stays_one_value() {
        assert!(written(Profile::Safe).contains(r#"store_dir: "/a \"b\"\\c/store""#));
    }
}
