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

/// A server as one of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterOptions {
    /// What it is called; no other server of the cluster may be called so.
    pub server_name: String,
    /// Where it listens for the others.
    pub routes_listen: SocketAddr,
    /// Where the others listen.
    pub routes: Vec<SocketAddr>,
}

impl ClusterOptions {
    fn write_into(&self, text: &mut String) {
        let routes: Vec<String> = self
            .routes
            .iter()
            .map(|route| format!("\"nats://{route}\""))
            .collect();
        let _ = writeln!(
            text,
            "cluster {{\n  name: loom\n  listen: \"{}\"\n  routes: [{}]\n}}",
            self.routes_listen,
            routes.join(", ")
        );
    }
}

/// Writes the configuration file and the folders that it names.
pub(super) fn write(options: &ServerOptions, listen: SocketAddr) -> Result<(), ServerError> {
    let run_dir = options.run_dir();
    create_dir(&options.store_path())?;
    create_dir(&run_dir)?;
    let path = options.file("nats-server.conf");
    let limit = options.max_file_store.or_else(|| disk_size(&path));
    let text = text(options, listen, limit)?;
    fs::write(&path, text).map_err(file_error("write", &path))
}

/// As much as the disk holds. Without a limit in its configuration the server takes three quarters of what is free
/// at its start, without what it holds already, and refuses every write at that, whatever was freed since.
fn disk_size(path: &Path) -> Option<u64> {
    let folder = path.parent()?;
    let disk = rustix::fs::statvfs(folder).ok()?;
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    (size > 0).then_some(size)
}

fn text(
    options: &ServerOptions,
    listen: SocketAddr,
    max_file_store: Option<u64>,
) -> Result<String, ServerError> {
    let mut text =
        String::from("# Written by Loom at every start of this server; changes are lost.\n");
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key}: {value}");
    };
    let cluster = options.cluster.as_ref();
    line("server_name", cluster.map_or("loom", |it| &it.server_name));
    line("listen", &quoted_text(&listen.to_string()));
    line("ports_file_dir", &quoted(&options.run_dir())?);
    line("log_file", &quoted(&options.log_path())?);
    line("logfile_size_limit", "10MB");
    line("logfile_max_num", "3");
    if let Some(most) = options.max_payload {
        line("max_payload", &most.to_string());
    }
    let store = quoted(&options.store_path())?;
    let sync = options.profile.sync_interval();
    let _ = writeln!(
        text,
        "jetstream {{\n  store_dir: {store}\n  sync_interval: {sync}"
    );
    if let Some(limit) = max_file_store {
        let _ = writeln!(text, "  max_file_store: {limit}");
    }
    text.push_str("}\n");
    if let Some(cluster) = &options.cluster {
        cluster.write_into(&mut text);
    }
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
        text(&options, "127.0.0.1:4222".parse().unwrap(), Some(7)).unwrap()
    }

    #[test]
    fn the_profile_decides_how_often_is_synced() {
        assert!(written(Profile::Safe).contains("sync_interval: always\n"));
        assert!(written(Profile::Fast).contains("sync_interval: \"100ms\"\n"));
    }

    #[test]
    fn the_store_may_be_as_large_as_its_disk() {
        assert!(written(Profile::Safe).contains("max_file_store: 7\n"));
        assert!(disk_size(Path::new("/tmp/file")).unwrap() > 1_000_000);
    }

    #[test]
    fn a_server_of_a_cluster_knows_the_others() {
        let mut options = ServerOptions::new(PathBuf::new(), PathBuf::from("/a"));
        options.cluster = Some(ClusterOptions {
            server_name: "two".into(),
            routes_listen: "127.0.0.1:6222".parse().unwrap(),
            routes: vec!["127.0.0.1:6221".parse().unwrap()],
        });
        let text = text(&options, "127.0.0.1:4222".parse().unwrap(), None).unwrap();
        assert!(text.contains("server_name: two\n") && text.contains("127.0.0.1:6221"));
        assert!(!text.contains("max_file_store"));
    }

    #[test]
    fn a_path_with_quotes_stays_one_value() {
        assert!(written(Profile::Safe).contains(r#"store_dir: "/a \"b\"\\c/store""#));
    }
}
