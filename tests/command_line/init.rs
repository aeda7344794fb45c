//! `loom init` in directories as people have them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::program::{loom, outcome};

fn init(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    outcome(loom(&["init"]).args(arguments).current_dir(dir))
}

#[test]
fn init_makes_agents_md_and_once_more_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("AGENTS.md");
    let (code, stdout, _) = init(dir.path(), &["--check"]);
    assert_eq!((code, file.exists()), (1, false), "{stdout}");
    let (code, stdout, stderr) = init(dir.path(), &[]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "AGENTS.md: made\n"),
        "{stderr}"
    );
    let made = fs::read_to_string(&file).unwrap();
    assert!(
        made.contains("LOOM_WORK_ITEM_ID") && made.contains("loom submit"),
        "{made}"
    );
    let (_, printed, _) = init(dir.path(), &["--print"]);
    assert_eq!(printed, made);
    let (code, stdout, _) = init(dir.path(), &["--json"]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told[0]["outcome"]), (0, &Value::from("unchanged")));
    assert_eq!(fs::read_to_string(&file).unwrap(), made);
    assert_eq!(init(dir.path(), &["--check"]).0, 0);
}

#[test]
fn what_people_wrote_stays_and_the_block_can_be_taken_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let [agents, claude] = ["AGENTS.md", "CLAUDE.md"].map(|name| dir.path().join(name));
    fs::write(&agents, "# Ours").unwrap();
    fs::write(&claude, "# Of Claude\n").unwrap();
    fs::set_permissions(&claude, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, ..) = init(dir.path(), &[]);
    let text = fs::read_to_string(&claude).unwrap();
    assert_eq!(code, 0);
    assert!(
        text.starts_with("# Of Claude\n\n<!-- loom: begin"),
        "{text}"
    );
    let mode = fs::metadata(&claude).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, ..) = init(dir.path(), &["--remove"]);
    assert_eq!(code, 0);
    assert_eq!(fs::read_to_string(&agents).unwrap(), "# Ours\n");
    assert_eq!(fs::read_to_string(&claude).unwrap(), "# Of Claude\n");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_claude_md_that_is_or_takes_in_agents_md_gets_no_second_block() {
    for claude in [None, Some("Read @AGENTS.md first.\n")] {
        let dir = tempfile::tempdir().unwrap();
        let [agents, other] = ["AGENTS.md", "CLAUDE.md"].map(|name| dir.path().join(name));
        fs::write(&agents, "# Ours\n").unwrap();
        match claude {
            Some(text) => fs::write(&other, text).unwrap(),
            None => symlink("AGENTS.md", &other).unwrap(),
        }
        let (code, stdout, stderr) = init(dir.path(), &[]);
        assert_eq!((code, stdout.lines().count()), (0, 1), "{stdout}{stderr}");
        let text = fs::read_to_string(&agents).unwrap();
        assert_eq!(text.matches("<!-- loom: begin").count(), 1, "{text}");
        let is_link = fs::symlink_metadata(&other).unwrap().is_symlink();
        assert_eq!(is_link, claude.is_none());
    }
}

#[test]
fn what_is_not_understood_is_refused_and_no_file_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("half.md"), "one\n<!-- loom: begin -->\n").unwrap();
    fs::write(at("odd.md"), b"\xff\xfe").unwrap();
    fs::write(at("huge.md"), vec![b'x'; (1 << 20) + 1]).unwrap();
    fs::create_dir(at("dir.md")).unwrap();
    symlink("nowhere.md", at("link.md")).unwrap();
    for (name, word) in [
        ("half.md", "line 2"),
        ("odd.md", "UTF-8"),
        ("huge.md", "at most"),
        ("dir.md", "no file"),
        ("link.md", "nowhere.md"),
        ("no/such/dir.md", "cannot be read"),
    ] {
        let (code, stdout, stderr) = init(dir.path(), &["good.md", name]);
        assert!(
            matches!(code, 1 | 2) && stdout.is_empty(),
            "{name}: {code} {stdout}"
        );
        assert!(
            stderr.contains(name) && stderr.contains(word),
            "{name}: {stderr}"
        );
        assert!(!at("good.md").exists(), "{name}");
    }
}
