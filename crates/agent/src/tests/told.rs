//! What a program is told: arguments, variables, standard input.

use super::*;

#[tokio::test]
async fn what_can_not_stand_in_an_argument_fails_for_good() {
    let mut it = item();
    it.description = "a\0b".into();
    let mut plan = sh("true");
    plan.command.push("{description}".into());
    let error = failed(run_job(plan.clone(), job_for(it.clone())).await);
    assert!(!error.is_recoverable() && error.message().contains("NUL"));
    it.description = "x".repeat(200_000);
    let error = failed(run_job(plan.clone(), job_for(it.clone())).await);
    assert!(!error.is_recoverable() && error.message().contains("--stdin"));
    it.description = "short".into();
    let context = serde_json::json!({"text": "x".repeat(200_000)});
    it.context_data = Some(loom_protocol::Body::of(&context).unwrap());
    for argument in ["{context.text}", "all: {context}"] {
        *plan.command.last_mut().unwrap() = argument.into();
        let error = failed(run_job(plan.clone(), job_for(it.clone())).await);
        assert!(!error.is_recoverable() && error.code_of() == Some("arguments-too-long"));
        assert!(error.message().contains(argument), "{}", error.message());
    }
}

#[tokio::test]
async fn a_description_of_any_length_comes_by_a_file() {
    let mut it = item();
    it.description = "ü".repeat(100_000);
    let mut plan =
        sh(r#"cat "$1" "$LOOM_WORK_DESCRIPTION_FILE" | wc -c; test -z "$LOOM_WORK_DESCRIPTION""#);
    plan.command
        .extend(["sh", "{descriptionFile}"].map(str::to_owned));
    let result = completed(run_job(plan, job_for(it)).await);
    assert_eq!(result.reported().summary.as_deref(), Some("400000"));
}

#[tokio::test]
async fn placeholders_and_variables_tell_of_the_item_and_no_shell_reads_them() {
    let mut it = item();
    it.description = "say \"hi\"; $(touch /tmp/never) {id}".into();
    let script =
        r#"printf '{"argument":%s,"same":%s,"attempt":%s}\n' "$1" "$2" "$LOOM_WORK_ATTEMPT""#;
    let mut plan = sh("");
    let same = r#"test "$LOOM_WORK_DESCRIPTION" = "$0" && same=true; "#;
    plan.command = [
        "sh",
        "-c",
        &format!("{same}set -- 1 \"${{same:-false}}\"; {script}"),
        "{description}",
    ]
    .map(str::to_owned)
    .into();
    let result = completed(run_job(plan, job_for(it)).await);
    assert_eq!(
        output(&result),
        serde_json::json!({"argument": 1, "same": true, "attempt": 3})
    );
}

#[tokio::test]
async fn standard_input_is_the_description_or_the_item() {
    let mut it = item();
    it.description = "d".repeat(16 * 1024);
    let mut plan = sh("wc -c");
    plan.stdin = Stdin::Description;
    let result = completed(run_job(plan.clone(), job_for(it.clone())).await);
    assert_eq!(result.reported().summary.as_deref(), Some("16384"));
    plan.stdin = Stdin::Json;
    plan.command[2] = "cat".into();
    let result = completed(run_job(plan.clone(), job_for(it.clone())).await);
    assert_eq!(output(&result)["id"], it.id.to_string());
    // A program that doesn't read must not hang, however much there is.
    it.context_data = Some(loom_protocol::Body::of(&"x".repeat(300_000)).unwrap());
    plan.command[2] = "exit 0".into();
    completed(run_job(plan, job_for(it)).await);
}
