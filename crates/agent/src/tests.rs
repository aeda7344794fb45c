//! Runs real programs, without a coordinator.

use std::sync::Arc;
use std::time::Duration;

use loom_client::clock;
use loom_client::{Job, JobEnd, JobError, JobResult};
use loom_protocol::work::Reason;
use tokio::time::{Instant, timeout};

use super::args::Stdin;
use super::execute::Bounds;
use super::exit_rule::ExitRules;
use super::host::Host;
use super::limit::LimitPatterns;
use super::limit_presets::LimitPreset;
use super::plan::Plan;
use super::result::ResultForm;
use super::runner::Runner;
use super::testing::{item, job, job_for};
use super::workdir::Workdir;

mod by_itself;
mod host;
mod told;

/// No test may take longer.
const LIMIT: Duration = Duration::from_secs(30);

fn sh(script: &str) -> Plan {
    Plan {
        known: None,
        command: ["sh", "-c", script].map(str::to_owned).into(),
        stdin: Stdin::None,
        result: ResultForm::Auto,
        workdir: None,
        before: None,
        after: None,
        bounds: Bounds {
            grace: Duration::from_secs(5),
            max_runtime: None,
            silent_timeout: None,
        },
        rules: ExitRules::default(),
        limits: LimitPatterns::default(),
    }
}

async fn run(plan: Plan) -> JobEnd {
    run_job(plan, job()).await
}

async fn run_job(plan: Plan, job: Job) -> JobEnd {
    let runner = Runner::new(plan, "tester".into(), Vec::new());
    timeout(LIMIT, runner.work(job)).await.unwrap()
}

fn completed(end: JobEnd) -> JobResult {
    match end {
        JobEnd::Completed(result) => result,
        other => panic!("not completed: {other:?}"),
    }
}

fn failed(end: JobEnd) -> JobError {
    match end {
        JobEnd::Failed(error) => error,
        other => panic!("not failed: {other:?}"),
    }
}

fn output(result: &JobResult) -> serde_json::Value {
    result.reported().output.as_ref().unwrap().parse().unwrap()
}

/// Waits until a file is there, and reads it.
async fn file(path: &std::path::Path) -> String {
    let until = Instant::now() + LIMIT;
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ if Instant::now() > until => panic!("{} never came", path.display()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until nobody of that id is alive.
async fn gone(pid: &str) {
    let until = Instant::now() + LIMIT;
    let stat = format!("/proc/{pid}/stat");
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        assert!(Instant::now() < until, "process {pid} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_that_exits_with_zero_completes_with_its_last_line_of_json() {
    let end = run(sh(
        r#"echo working; echo '{"summary":"ok","output":[1]}'; echo"#,
    ))
    .await;
    let result = completed(end);
    let summary = result.reported().summary.as_deref();
    assert_eq!(summary, Some("ok\n\nworking"));
    assert_eq!(output(&result), serde_json::json!([1]));
}

#[tokio::test]
async fn exit_codes_mean_what_the_rules_say() {
    let mut plan = sh("echo out; echo err >&2; exit 7");
    let error = failed(run(plan.clone()).await);
    assert!(error.is_recoverable());
    for part in [
        "exit code 7",
        "end of stderr ---\nerr",
        "end of stdout ---\nout",
    ] {
        assert!(error.message().contains(part), "{}", error.message());
    }
    plan.rules = ExitRules::new(vec!["7=permanent".parse().unwrap()]);
    assert!(!failed(run(plan.clone()).await).is_recoverable());
    plan.rules = ExitRules::new(vec!["7=release".parse().unwrap()]);
    assert!(matches!(run(plan.clone()).await, JobEnd::Released));
    plan.rules = ExitRules::new(vec!["7=complete".parse().unwrap()]);
    completed(run(plan).await);
    assert!(failed(run(sh("exit 75")).await).is_recoverable());
    assert!(
        failed(run(sh("kill -9 $$")).await)
            .message()
            .starts_with("ended by signal 9")
    );
}

#[tokio::test]
async fn each_item_has_its_directory_with_commands_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = sh("cat made; echo $LOOM_WORK_DIR; pwd");
    plan.workdir = Some(format!("{}/{{id}}-{{attempt}}", dir.path().display()));
    plan.before = Some("echo before > made".into());
    plan.after = Some(format!(
        "echo $LOOM_WORK_OUTCOME > {}/after",
        dir.path().display()
    ));
    let result = completed(run(plan.clone()).await);
    let text = output(&result);
    let lines: Vec<&str> = text.as_str().unwrap().lines().collect();
    assert_eq!(lines[0], "before");
    assert!(
        lines[1].ends_with("-3") && lines[1] == lines[2],
        "{lines:?}"
    );
    assert_eq!(file(&dir.path().join("after")).await, "completed");

    plan.before = Some("echo no disk >&2; exit 3".into());
    let error = failed(run(plan.clone()).await);
    assert!(
        error
            .message()
            .starts_with("the --before command: exit code 3"),
        "{}",
        error.message()
    );
    assert_eq!(file(&dir.path().join("after")).await, "failed");

    plan.before = None;
    plan.after = Some("exit 4".into());
    plan.command[2] = "true".into();
    let error = failed(run(plan).await);
    assert!(
        error
            .message()
            .starts_with("the --after command: exit code 4"),
        "{}",
        error.message()
    );
}

#[tokio::test]
async fn a_cancel_ends_the_whole_group_by_term_and_then_by_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (pids, told) = (dir.path().join("pids"), dir.path().join("told"));
    let mut plan = sh(&format!(
        "trap 'echo term > {told}' TERM; sleep 600 & (trap '' TERM; sleep 601) & echo $$ $! > {pids}; while true; do wait; done",
        told = told.display(),
        pids = pids.display()
    ));
    plan.bounds.grace = Duration::from_millis(300);
    let job = job();
    let cancel = job.cancelled().clone();
    let running = tokio::spawn(run_job(plan, job));
    let pids = file(&pids).await;
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(file(&told).await, "term");
    for pid in pids.split_whitespace() {
        gone(pid).await;
    }
}

#[tokio::test]
async fn what_a_program_said_before_it_was_stopped_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    for (says, kept) in [
        ("echo half; echo of it", Some("half\nof it")),
        ("true", None),
    ] {
        let _ = std::fs::remove_file(&ready);
        let plan = sh(&format!("{says}; echo > {}; sleep 600", ready.display()));
        let job = job();
        let cancel = job.cancelled().clone();
        let running = tokio::spawn(run_job(plan, job));
        file(&ready).await;
        cancel.cancel();
        match (running.await.unwrap(), kept) {
            (JobEnd::Stopped(result), Some(kept)) => assert_eq!(output(&result), kept),
            (JobEnd::Failed(_), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_grandchild_that_keeps_the_pipe_open_does_not_hang_the_item() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let started = Instant::now();
    let end = run(sh(&format!(
        "sleep 600 & echo $! > {}; echo done",
        pid.display()
    )))
    .await;
    assert_eq!(completed(end).reported().summary.as_deref(), Some("done"));
    assert!(started.elapsed() < Duration::from_secs(10));
    gone(&file(&pid).await).await;
}

#[tokio::test]
async fn a_daemon_outside_the_group_does_not_hang_the_item_either() {
    let started = Instant::now();
    let end = run(sh("setsid sh -c 'sleep 20' & echo done")).await;
    assert_eq!(completed(end).reported().summary.as_deref(), Some("done"));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// Longer than a busy machine keeps a program from its next sign of life.
const SILENT_TIMEOUT: Duration = Duration::from_secs(4);

/// Gives a sign of life fifty times within the time of which it may not be silent, and goes on for longer than that.
fn signs(sign: &str) -> String {
    format!("i=0; while test $i -lt 60; do {sign}; sleep 0.08; i=$((i + 1)); done; echo ok")
}

#[tokio::test]
async fn a_silent_program_is_ended_only_if_asked_for() {
    let mut plan = sh("echo begin; sleep 600");
    plan.bounds.silent_timeout = Some(Duration::from_millis(300));
    let error = failed(run(plan).await);
    assert!(
        error.message().contains("--silent-timeout"),
        "{}",
        error.message()
    );
    assert!(error.is_recoverable());
    let mut plan = sh(&signs("echo sign"));
    plan.bounds.silent_timeout = Some(SILENT_TIMEOUT);
    completed(run(plan).await);
}

#[tokio::test]
async fn an_endless_program_is_ended_by_its_runtime_in_bounded_memory() {
    let mut plan = sh("yes endless | tr -d '\\n'");
    plan.bounds.max_runtime = Some(Duration::from_millis(700));
    let error = failed(run(plan).await);
    assert!(
        error.message().contains("--max-runtime"),
        "{}",
        error.message()
    );
    assert_eq!(error.code_of(), Some("max-runtime"));
    assert_eq!(error.reason_of(), Some(Reason::Timeout));
}

#[tokio::test]
async fn binary_output_is_no_trouble() {
    let result = completed(run(sh("head -c 3000000 /dev/urandom; echo; echo fine")).await);
    assert_eq!(result.reported().summary.as_deref(), Some("fine"));
}

#[tokio::test]
async fn an_item_whose_directory_is_taken_ends_when_it_is_called_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("same");
    let mut plan = sh("echo never");
    plan.workdir = Some(path.display().to_string());
    let taken = Workdir::take(&path, || {}).await.unwrap();
    let job = job();
    job.cancelled().cancel();
    assert!(matches!(run_job(plan.clone(), job).await, JobEnd::Released));
    drop(taken);
    completed(run(plan).await);
}

#[tokio::test]
async fn what_a_program_closes_or_never_ends_is_kept() {
    let end = run(sh("echo first; exec 1>&-; sleep 0.2; exit 0")).await;
    assert_eq!(completed(end).reported().summary.as_deref(), Some("first"));
    let end = run(sh(
        "for n in 1 2 3; do printf '%s%%\\r' $n; done; printf 'no newline'",
    ))
    .await;
    let result = completed(end);
    assert_eq!(result.reported().summary.as_deref(), Some("no newline"));
    assert_eq!(output(&result), "1%\n2%\n3%\nno newline");
}

#[tokio::test]
async fn a_program_that_disappears_gives_its_item_back() {
    let mut plan = sh("");
    plan.command = vec!["/no/such/program".into()];
    let runner = Runner::new(plan, "tester".into(), Vec::new());
    let end = timeout(LIMIT, runner.work(job())).await.unwrap();
    assert!(matches!(end, JobEnd::Released));
    assert!(runner.program_gone().unwrap().contains("/no/such/program"));
}

#[tokio::test]
async fn a_usage_limit_is_no_failure() {
    let limits = LimitPatterns::new(&[], &[LimitPreset::Claude]).unwrap();
    let run = async |script: &str| {
        let limits = limits.clone();
        run(Plan {
            limits,
            ..sh(script)
        })
        .await
    };
    let far = "4102444800";
    let said = run(&format!(
        "echo 'Claude AI usage limit reached|{far}'; exit 1"
    ))
    .await;
    let JobEnd::LimitReached(Some(until)) = said else {
        panic!("no limit: {said:?}");
    };
    assert_eq!(until.to_string(), "2100-01-01T00:00:00.000Z");
    let now = clock::now();
    let rest = async |script: &str| match run(script).await {
        JobEnd::LimitReached(Some(until)) => until.since(now),
        other => panic!("no limit: {other:?}"),
    };
    let vague = rest("echo 'weekly limit reached' >&2; exit 1").await;
    assert!(vague >= Duration::from_mins(5), "{vague:?}");
    let passed = rest("echo 'Claude AI usage limit reached|1000000000'; exit 1").await;
    assert!(passed >= Duration::from_mins(1), "{passed:?}");
    failed(run("echo 'no such file' >&2; exit 1").await);
    completed(run("echo 'all done'").await);
}
