//! What the host cannot give is not the item's fault.

use super::*;

/// A runner on a host that was fine when it began.
fn on_host(plan: Plan) -> Runner {
    let host = Host::new(plan.workdir.as_deref(), false).unwrap();
    Runner::new(plan, "tester".into(), Vec::new()).on_host(Arc::new(host))
}

fn given_back(end: JobEnd) -> String {
    match end {
        JobEnd::GivenBack {
            because,
            not_before: Some(_),
        } => because,
        other => panic!("not given back: {other:?}"),
    }
}

#[tokio::test]
async fn a_trouble_of_the_host_gives_the_item_back_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let mut plan = sh("true");
    plan.workdir = Some(format!("{}/{{id}}", base.display()));
    let runner = on_host(plan);
    std::fs::remove_dir(&base).unwrap();
    std::fs::write(&base, "").unwrap();
    let why = given_back(timeout(LIMIT, runner.work(job())).await.unwrap());
    assert!(
        why.contains("can't be made") && why.contains("base"),
        "{why}"
    );

    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut plan = sh("true");
    plan.command = vec![script.display().to_string()];
    let why = given_back(timeout(LIMIT, on_host(plan).work(job())).await.unwrap());
    assert!(why.contains("can't be started"), "{why}");
}

#[tokio::test]
async fn what_only_one_item_cannot_have_is_its_own_failure() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let labelled = |label: &str| {
        let mut item = item();
        item.labels.insert("a".into(), label.into());
        job_for(item)
    };
    let mut plan = sh("true");
    plan.workdir = Some(format!("{}/{{label.a}}/{{id}}", dir.path().display()));
    let runner = on_host(plan);
    let error = failed(timeout(LIMIT, runner.work(labelled("file"))).await.unwrap());
    assert_eq!(
        (error.code_of(), error.is_recoverable()),
        (Some("workdir"), true)
    );
    completed(
        timeout(LIMIT, runner.work(labelled("other")))
            .await
            .unwrap(),
    );

    let mut plan = sh("true");
    plan.command = vec![format!("{}/{{label.a}}", dir.path().display())];
    let runner = on_host(plan);
    for label in ["nothing", "file"] {
        let error = failed(timeout(LIMIT, runner.work(labelled(label))).await.unwrap());
        assert_eq!(error.code_of(), Some("no-program"), "{}", error.message());
    }
    assert_eq!(runner.program_gone(), None);
}
