//! What a program may do. Pure.

use clap::ValueEnum;

/// How much a program may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Allow {
    /// Read, and edit files in its directory
    Edit,
    /// And run tests, the commands of --may-run, and git commands that look at things (status, diff, log, show, blame, ls-files)
    #[default]
    Test,
    /// Whatever it wants, without asking anybody: for a container or another place with nothing to lose
    All,
}

impl Allow {
    /// Its word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Test => "test",
            Self::All => "all",
        }
    }
}

/// How the field runs its tests.
const TESTS: [&str; 24] = [
    "npm test",
    "npm run test",
    "npm run lint",
    "npm run build",
    "pnpm test",
    "pnpm run test",
    "yarn test",
    "npx tsc",
    "npx vitest run",
    "npx jest",
    "bun test",
    "deno test",
    "cargo test",
    "cargo check",
    "cargo clippy",
    "cargo build",
    "cargo fmt",
    "go test",
    "go vet",
    "go build",
    "pytest",
    "python -m pytest",
    "make test",
    "make check",
];
/// What looks at things; with `--output=FILE` some of it writes a file. `git branch` and `git remote` do more than that, and are not among them.
const GIT: [&str; 6] = [
    "git status",
    "git diff",
    "git log",
    "git show",
    "git blame",
    "git ls-files",
];

/// What a program may do, and what it may run beside the usual tests.
#[derive(Debug, Clone, Default)]
pub struct Power {
    /// How much.
    pub allow: Allow,
    may_run: Vec<String>,
}

impl Power {
    /// That much, and these commands (with any arguments).
    ///
    /// # Errors
    /// A sentence: a command can't be written as a rule of a program, or `edit` runs none.
    pub fn new(allow: Allow, may_run: Vec<String>) -> Result<Self, String> {
        if allow == Allow::Edit
            && let Some(command) = may_run.first()
        {
            return Err(format!(
                "--may-run {command:?} needs --allow test; --allow edit runs no commands"
            ));
        }
        for command in &may_run {
            let is_odd = |c: char| {
                c.is_control()
                    || matches!(
                        c,
                        '(' | ')'
                            | ','
                            | ':'
                            | '*'
                            | '&'
                            | '|'
                            | ';'
                            | '<'
                            | '>'
                            | '$'
                            | '`'
                            | '{'
                            | '}'
                    )
            };
            if command.trim().is_empty() || command.starts_with('-') || command.contains(is_odd) {
                return Err(format!(
                    "--may-run {command:?} is no plain command; write its first words, like \"npm test\" (any arguments may follow)"
                ));
            }
        }
        Ok(Self { allow, may_run })
    }

    /// The commands that it may run, each with any arguments; none are named where it may run all or none.
    pub fn commands(&self) -> Vec<&str> {
        match self.allow {
            Allow::Edit | Allow::All => Vec::new(),
            Allow::Test => {
                let own = self.may_run.iter().map(String::as_str);
                own.chain(TESTS).chain(GIT).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_have_commands_and_ones_own_come_first() {
        let power = Power::new(Allow::Test, vec!["just check".into()]).unwrap();
        let commands = power.commands();
        assert_eq!(commands[0], "just check");
        assert!(commands.contains(&"npm test") && commands.contains(&"git diff"));
        assert!(!commands.iter().any(|command| command.contains("git push")));
        for allow in [Allow::Edit, Allow::All] {
            assert!(Power::new(allow, Vec::new()).unwrap().commands().is_empty());
        }
    }

    #[test]
    fn what_is_no_plain_command_is_refused() {
        for odd in [
            "",
            " ",
            "a,b",
            "x) Bash(rm",
            "-rf",
            "a:*",
            "a && b",
            "a|b",
            "$(a)",
            "a\nb",
        ] {
            let error = Power::new(Allow::Test, vec![odd.into()]).unwrap_err();
            assert!(error.contains("no plain command"), "{odd:?}: {error}");
        }
        let error = Power::new(Allow::Edit, vec!["npm test".into()]).unwrap_err();
        assert!(error.contains("--allow test"), "{error}");
    }
}
