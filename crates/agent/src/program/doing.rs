//! What a program does, in a line that a person understands: "edits src/a.ts", "runs npm test". Pure.

use serde_json::Value;

/// The longest line, in characters.
const LINE: usize = 120;
/// Where tools say what they are about, in the order of preference.
const ABOUT: [&str; 10] = [
    "file_path",
    "path",
    "filePath",
    "absolute_path",
    "notebook_path",
    "command",
    "pattern",
    "query",
    "url",
    "description",
];

/// The line for a call of a tool with this input; `directory` is left out of paths.
pub fn line(tool: &str, input: &Value, directory: Option<&str>) -> String {
    let mut about = ABOUT.iter().filter_map(|name| input.get(name)?.as_str());
    let about = about.find(|about| !about.trim().is_empty());
    let Some(about) = about else {
        return shown(&format!("uses {tool}"));
    };
    let verb = match tool.to_ascii_lowercase().as_str() {
        "edit" | "multiedit" | "write" | "notebookedit" | "write_file" | "replace" | "create"
        | "str_replace_editor" | "str_replace" | "apply_patch" | "insert" => "edits",
        "read" | "read_file" | "read_many_files" | "view" => "reads",
        "bash" | "shell" | "run_shell_command" | "local_shell" | "powershell" => "runs",
        "grep" | "glob" | "ls" | "list_directory" | "search_file_content" | "rg" | "search" => {
            "searches"
        }
        "webfetch" | "websearch" | "web_fetch" | "google_web_search" | "web_search" => "looks up",
        "task" | "agent" => "hands on",
        _ => return shown(&format!("uses {tool}: {}", within(about, directory))),
    };
    shown(&format!("{verb} {}", within(about, directory)))
}

/// The line for a command of a shell.
pub fn runs(command: &str) -> String {
    // Some run each command by a shell of their own.
    let inner = [
        "bash -lc ",
        "/bin/bash -lc ",
        "bash -c ",
        "sh -c ",
        "zsh -lc ",
    ]
    .into_iter()
    .find_map(|shell| command.strip_prefix(shell));
    let inner = inner.map(|inner| inner.trim_matches(['\'', '"']));
    shown(&format!("runs {}", inner.unwrap_or(command)))
}

/// The line for a file that is written.
pub fn edits(path: &str, directory: Option<&str>) -> String {
    shown(&format!("edits {}", within(path, directory)))
}

fn within<'a>(path: &'a str, directory: Option<&str>) -> &'a str {
    let inside = directory.and_then(|directory| path.strip_prefix(directory));
    let inside = inside.and_then(|inside| inside.strip_prefix('/'));
    inside.filter(|inside| !inside.is_empty()).unwrap_or(path)
}

/// One line, without control characters, and not too long.
fn shown(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LINE) {
        Some((end, _)) => line[..end].to_owned() + "…",
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tools_are_told_in_words() {
        for (tool, input, told) in [
            (
                "Edit",
                json!({"file_path": "/w/src/a.ts", "old_string": "x"}),
                "edits src/a.ts",
            ),
            (
                "Bash",
                json!({"command": "npm  test\n&& echo", "description": "Runs"}),
                "runs npm test && echo",
            ),
            ("read_file", json!({"absolute_path": "/w/b"}), "reads b"),
            (
                "WebFetch",
                json!({"url": "https://x.y"}),
                "looks up https://x.y",
            ),
            ("TodoWrite", json!({"todos": []}), "uses TodoWrite"),
            (
                "mcp__db__ask",
                json!({"query": "all"}),
                "uses mcp__db__ask: all",
            ),
            ("Write", json!({"file_path": "/w"}), "edits /w"),
            ("Bash", json!(null), "uses Bash"),
        ] {
            assert_eq!(line(tool, &input, Some("/w")), told);
        }
        assert_eq!(runs("bash -lc 'npm test'"), "runs npm test");
        assert_eq!(edits("/other/a", Some("/w")), "edits /other/a");
        let long = runs(&"ü\u{1b}[2J ".repeat(500));
        assert!(
            long.chars().count() <= LINE + 1 && !long.contains('\u{1b}'),
            "{long}"
        );
    }
}
