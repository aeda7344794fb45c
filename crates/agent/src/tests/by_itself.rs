//! What a program tells by itself, over its socket.

use super::*;

/// A word of a shell script that says this over the socket and prints the answer. Needs `python3`.
fn says(line: &str) -> String {
    const SAY: &str = "import os,socket,sys
s=socket.socket(socket.AF_UNIX)
s.connect(os.environ[\"LOOM_WORK_SOCKET\"])
s.sendall((sys.argv[1]+\"\\n\").encode())
print(s.makefile().readline(),end=\"\")";
    format!("python3 -c '{SAY}' '{line}'")
}

fn done(summary: &str) -> String {
    let request = serde_json::json!({"verb": "complete", "request": {"summary": summary}});
    says(&request.to_string())
}

const FAILED: &str =
    r#"{"verb":"fail","request":{"message":"no disk","code":"ENOSPC","permanent":true}}"#;

#[tokio::test]
async fn a_program_that_tells_of_progress_by_itself_is_not_silent() {
    // In one process: a busy machine takes long to start sixty.
    const SIGNS: &str = "import os,socket,time
for n in range(60):
    s=socket.socket(socket.AF_UNIX)
    s.connect(os.environ[\"LOOM_WORK_SOCKET\"])
    s.sendall(b\"{\\\"verb\\\":\\\"progress\\\",\\\"request\\\":{\\\"progress\\\":1}}\\n\")
    s.makefile().readline()
    # deliberate sleep: the silence between two signs is what is tested
    time.sleep(0.08)";
    let mut plan = sh(&format!("python3 -c '{SIGNS}'; echo ok"));
    plan.bounds.silent_timeout = Some(SILENT_TIMEOUT);
    assert_eq!(
        completed(run(plan).await).reported().summary.as_deref(),
        Some("ok")
    );
}

#[tokio::test]
async fn the_end_that_a_program_tells_counts_whatever_its_exit_code_is() {
    let result = completed(run(sh(&format!("{}; exit 9", done("did it")))).await);
    assert_eq!(result.reported().summary.as_deref(), Some("did it"));
    let told = format!("{}; echo '{{\"summary\":\"ignored\"}}'", says(FAILED));
    let error = failed(run(sh(&told)).await);
    assert_eq!(
        (error.message(), error.code_of()),
        ("no disk", Some("ENOSPC"))
    );
    assert!(!error.is_recoverable());
}

#[tokio::test]
async fn a_completion_that_a_program_tells_goes_through_the_same_end_as_any() {
    let mut plan = sh(&done("I say so"));
    plan.after = Some("exit 4".into());
    let error = failed(run(plan.clone()).await);
    assert!(error.message().contains("the --after command: exit code 4"));
    // And --after itself may tell an end.
    plan.after = Some(says(FAILED));
    plan.command[2] = "true".into();
    assert_eq!(failed(run(plan).await).message(), "no disk");
}

#[tokio::test]
async fn a_program_that_has_told_its_end_may_tidy_up_and_a_cancel_still_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let tidy = dir.path().join("tidy");
    let script = format!("{}; sleep 0.3; echo tidy > {}", done("x"), tidy.display());
    completed(run(sh(&script)).await);
    assert_eq!(file(&tidy).await, "tidy");

    let ready = dir.path().join("ready");
    let script = format!("{}; echo > {}; sleep 600", done("half"), ready.display());
    let job = job();
    let cancel = job.cancelled().clone();
    let running = tokio::spawn(run_job(sh(&script), job));
    file(&ready).await;
    cancel.cancel();
    // What the item came to by then is decided by the answer of the coordinator.
    let result = completed(running.await.unwrap());
    assert_eq!(result.reported().summary.as_deref(), Some("half"));
}

#[tokio::test]
async fn a_socket_is_of_one_attempt_and_in_no_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = sh("echo $LOOM_WORK_SOCKET; test -S $LOOM_WORK_SOCKET && ls -A | wc -l");
    plan.workdir = Some(format!("{}/{{id}}", dir.path().display()));
    let result = completed(run(plan).await);
    let text = output(&result);
    let (path, files) = text.as_str().unwrap().split_once('\n').unwrap();
    assert!(path.len() < 108 && !path.starts_with(&*dir.path().to_string_lossy()));
    assert_eq!(files.trim(), "0");
    assert!(!std::path::Path::new(path).exists(), "{path}");
}
