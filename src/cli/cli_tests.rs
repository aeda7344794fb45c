use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[track_caller]
fn refused(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn commands_may_be_left_out_where_listing_is_meant() {
    for line in [
        "loom work",
        "loom work --json",
        "loom work --status pending",
        "loom work list --status pending --all",
        "loom work --json show 0198",
        "loom work show 0198 --json --project p",
        "loom work --since 2h --sort updated -o wide",
        "loom work list --since 2026-01-31 -q --assigned-to anna-1",
        "loom agents show anna-1 --json",
        "loom agents -o id --all",
        "loom projects -q",
        "loom dlq --sort oldest --since 1d -o json",
        "loom agents",
        "loom agents list --type t",
        "loom --url http://h:1 stats",
        "loom submit something -c rust -l a=b -l c=d --wait",
        "loom submit -f - --capability rust",
        "loom dlq retry --all --keep-attempts",
        "loom config check --set agents.stale_after=1m",
        "loom completions bash",
        "loom work -A",
        "loom up -d --port 0",
        "loom down --pid 7",
        "loom status --json",
        "loom doctor --data-dir /tmp",
        "loom events --topic work --topic agents -A --json",
        "loom work cancel --label team=a --status pending",
        "loom work retry 0198 0199",
        "loom work clone 0198 --wait",
        "loom queue",
        "loom queue purge --capability rust",
        "loom submit -c rust",
        "loom submit - -c rust",
        "loom submit -c rust --description-file task.md",
        "loom spin-up build-2 --wait",
        "loom spin-up build-2 --for 0198 --json --project p",
        "loom spin-up --json list --status failed --target build-2 -A",
        "loom spin-up list --all -o wide",
        "loom spin-up show 0198",
        "loom targets -A --limit 3",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn what_makes_no_sense_is_usage() {
    refused("loom");
    refused("loom submit");
    refused("loom submit something");
    refused("loom submit something -c rust -f tasks.jsonl");
    refused("loom submit something -c rust --priority 5.5");
    refused("loom submit something -c rust --label x");
    refused("loom work cancel");
    refused("loom work cancel 0198 --label team=a");
    refused("loom queue purge");
    refused("loom queue purge --all --label a");
    refused("loom work --all-projects --project p");
    refused("loom work --all-projects --cursor 7");
    refused("loom submit something -c rust --description-file task.md");
    refused("loom work show ..");
    refused("loom work -q -o wide");
    refused("loom work --since soon");
    refused("loom work --all --limit 3");
    let error = refused("loom dlq retry --keep-attempts");
    assert!(
        error.contains("--all") && error.contains("<IDS|"),
        "{error}"
    );
    refused("loom dlq retry 0198 --all");
    let error = refused("loom stats --project a.b");
    assert!(error.contains("projectId"), "{error}");
}

#[test]
fn filters_before_another_command_are_refused() {
    let cli = parse("loom work --status pending show 0198").unwrap();
    let context = Context::new(cli.globals);
    let Command::Work(args) = cli.command else {
        panic!("not work");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let error = runtime.block_on(work::run(&context, *args)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
