//! `local`: real processes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use loom_process::stat;
use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use loom_targets::{Found, Launcher, StartErrorKind, Stopped, environment};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    GRACE, PATIENCE, alive, around, end, file, launcher, order, pid_of, started_once, until,
};

fn local(config: &Value, folder: &Path) -> Box<dyn Launcher> {
    launcher(Mechanism::Local, config, &around(folder))
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn an_agent_sees_the_list_the_target_and_the_order_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let nasty = " a\"b'c$HOME `x`\n\\ é";
    let config = json!({
        "command": "env -0 > env.new && mv env.new env && exec sleep 600",
        "workingDirectory": folder.path(), "env": {"NASTY": nasty, "LOOM_TICKET": "overridden"},
    });
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let started = local.start(&order, never()).await.unwrap();
    let seen = file(&folder.path().join("env")).await;
    let seen: BTreeMap<&str, &str> = seen
        .split('\0')
        .filter_map(|one| one.split_once('='))
        .collect();
    assert_eq!(seen["NASTY"], nasty);
    for (name, value) in order.variables() {
        assert_eq!(seen[&*name], value, "{name}");
    }
    assert_eq!(seen["LOOMINAL_PROJECT_ID"], "p");
    assert_eq!(seen["LOOM_CAPABILITIES"], r#"["rust","c, c++"]"#);
    let by_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    for name in seen.keys() {
        let known = environment::is_allowed(name)
            || by_shell.contains(name)
            || name.starts_with("LOOM")
            || *name == "NASTY";
        assert!(known, "{name} is the coordinator's");
    }
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "there is something to be kept back"
    );
    end(&*local, order.spin_up, Some(&started.reference)).await;
}

#[tokio::test]
async fn the_whole_group_ends_and_what_has_left_it() {
    let folder = tempfile::tempdir().unwrap();
    let line = "setsid sh -c 'trap \"\" TERM; touch deaf; while :; do sleep 1; done' & sleep 600 & touch up; wait";
    let config = json!({"command": line, "workingDirectory": folder.path()});
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let started = local.start(&order, never()).await.unwrap();
    for name in ["up", "deaf"] {
        file(&folder.path().join(name)).await;
    }
    let found = local.find(order.spin_up, None).await.unwrap();
    assert_eq!(found, Found::Running(started.reference.clone()));
    let stopped = local
        .stop(
            order.spin_up,
            Some(&started.reference),
            Duration::from_millis(300),
        )
        .await
        .unwrap();
    let loom_targets::Stopped::Ended {
        processes, killed, ..
    } = stopped
    else {
        panic!("{stopped:?}")
    };
    assert!(processes >= 3 && killed >= 1, "{processes} {killed}");
    assert_eq!(alive(order.spin_up), []);
    // An agent that has ended is what is wanted.
    assert_eq!(
        end(&*local, order.spin_up, Some(&started.reference)).await,
        (0, 0)
    );
}

#[tokio::test]
async fn what_has_dropped_its_environment_ends_with_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"command": "env -i /bin/sleep 600 & touch up; wait", "workingDirectory": folder.path()});
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let started = local.start(&order, never()).await.unwrap();
    file(&folder.path().join("up")).await;
    let leader = stat::entry(pid_of(&started)).unwrap();
    until("the second process", || {
        (stat::in_group(leader.pid).len() == 2).then_some(())
    })
    .await;
    // Its leader dies, and the lock says that the group is still this start's.
    leader.signal(rustix::process::Signal::KILL);
    until("the end of the leader", || {
        stat::entry(pid_of(&started)).is_none().then_some(())
    })
    .await;
    assert_eq!(stat::in_group(leader.pid).len(), 1);
    end(&*local, order.spin_up, Some(&started.reference)).await;
    assert_eq!(stat::in_group(leader.pid), []);
}

#[tokio::test]
async fn what_can_t_be_started_is_said_by_its_name_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let garbage = folder.path().join("garbage");
    std::fs::write(&garbage, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (config, words, probed) in [
        (
            json!({"local": {"command": "no-such-program-here"}}),
            ["no-such-program-here", "not found"],
            true,
        ),
        (
            json!({"command": "no-such-program-here --x"}),
            ["no-such-program-here", "not found"],
            true,
        ),
        (
            json!({"local": {"command": plain}}),
            ["plain", "not executable"],
            true,
        ),
        (
            json!({"local": {"command": "/tmp"}}),
            ["/tmp", "not found"],
            true,
        ),
        (
            json!({"command": "true", "workingDirectory": "/no/such/place"}),
            ["/no/such/place", "workingDirectory"],
            true,
        ),
        (
            json!({"command": "true", "workingDirectory": plain}),
            ["plain", "no directory"],
            true,
        ),
        (
            json!({"local": {"command": garbage}}),
            ["garbage", "not started"],
            false,
        ),
    ] {
        let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
        let error = local.start(&order, never()).await.unwrap_err();
        assert_eq!(error.kind(), StartErrorKind::Refused, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
        let probe = local.probe(PATIENCE).await;
        assert_eq!(probe.is_err(), probed, "{probe:?}");
        assert_eq!(
            local.find(order.spin_up, None).await.unwrap(),
            Found::Absent
        );
        assert_eq!(
            std::fs::read_dir(folder.path().join("starts"))
                .unwrap()
                .count(),
            0
        );
    }
    let good = local(&json!({"local": {"command": "sleep"}}), folder.path());
    assert!(good.probe(PATIENCE).await.unwrap().seen.contains("sleep"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_starts_of_one_id_are_one_start() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        json!({"command": "echo x >> log; exec sleep 600", "workingDirectory": folder.path()});
    let order = order(SpinUpId::generate());
    let starters = (0..8).map(|_| local(&config, folder.path())).collect();
    let reference = started_once(starters, &order).await;
    assert_eq!(file(&folder.path().join("log")).await, "x\n");
    let local = local(&config, folder.path());
    end(&*local, order.spin_up, Some(&reference)).await;
}

#[tokio::test]
async fn an_agent_that_ends_is_told_with_its_words_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"command": "echo \"ticket $LOOM_TICKET and $KEY\"; echo oops >&2; exit 3", "env": {"KEY": "s3cret-of-target"}});
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let started = local.start(&order, never()).await.unwrap();
    let mut end = started.end.clone().unwrap();
    let end = tokio::time::timeout(PATIENCE, end.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone()
        .unwrap();
    assert!(!end.success && end.how.contains('3'), "{end:?}");
    assert_eq!(end.output, "ticket *** and ***\noops");
    // Somebody else reads it without knowing the ticket.
    let found = local
        .find(order.spin_up, Some(&started.reference))
        .await
        .unwrap();
    assert_eq!(
        found,
        Found::Ended {
            output: Some(end.output)
        }
    );
    assert!(stat::entry(pid_of(&started)).is_none(), "no zombie is left");
    // The same start again is the one that has ended.
    let again = local.start(&order, never()).await.unwrap();
    assert!(again.existing);
    assert_eq!(again.reference, started.reference);
    local.forget(order.spin_up).await;
    assert_eq!(
        std::fs::read_dir(folder.path().join("starts"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_process_of_the_same_number_is_somebody_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"command": "exec sleep 600"});
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let mut other = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    let boot_id = stat::boot_id().unwrap();
    let started_at = stat::started_at(other.id()).unwrap();
    for (started_at, boot_id) in [
        ("1".to_owned(), boot_id),
        (started_at, "another start of the system".to_owned()),
    ] {
        let reference = loom_targets::Reference::Local(loom_targets::LocalReference {
            spin_up: order.spin_up,
            pid: other.id(),
            started_at,
            boot_id,
            place: stat::place(),
        });
        let found = local.find(order.spin_up, Some(&reference)).await.unwrap();
        assert!(matches!(found, Found::Ended { .. }), "{found:?}");
        assert_eq!(end(&*local, order.spin_up, Some(&reference)).await, (0, 0));
    }
    // Of a process of another machine nothing is known here, whatever its number leads to.
    let away = loom_targets::Reference::Local(loom_targets::LocalReference {
        spin_up: order.spin_up,
        pid: other.id(),
        started_at: stat::started_at(other.id()).unwrap(),
        boot_id: stat::boot_id().unwrap(),
        place: Some("another machine".to_owned()),
    });
    let found = local.find(order.spin_up, Some(&away)).await.unwrap();
    assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
    let stopped = local
        .stop(order.spin_up, Some(&away), Duration::from_secs(1))
        .await
        .unwrap();
    assert!(
        matches!(stopped, loom_targets::Stopped::NotPossible { .. }),
        "{stopped:?}"
    );
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

/// Two coordinators on two machines, each with a folder of its own: that of the one sees nothing of the other's starts.
#[tokio::test]
async fn a_start_that_was_recorded_on_another_machine_is_not_said_to_be_absent() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = json!({"command": "sh", "args": ["-c", "exec sleep 600"]});
    let on = |machine: usize| {
        let around = loom_targets::Surroundings {
            place: Some(format!("machine {machine}")),
            ..around(folders[machine].path())
        };
        launcher(Mechanism::Local, &config, &around)
    };
    let (first, second) = (on(0), on(1));
    let recorded = first.place();
    assert_eq!(recorded.as_deref(), Some("machine 0"));
    // It was not begun: only the machine that would have begun it can say so.
    let id = SpinUpId::generate();
    let found = first.find_recorded(id, recorded.as_deref()).await.unwrap();
    assert_eq!(found, Found::Absent);
    let found = second.find_recorded(id, recorded.as_deref()).await.unwrap();
    let Found::Unknown { why } = found else {
        panic!("{found:?}");
    };
    assert!(why.contains("another machine"), "{why}");
    // Older coordinators did not record where they were.
    let found = second.find_recorded(id, None).await.unwrap();
    assert_eq!(found, Found::Absent);

    // It was begun: its process is seen on its own machine, and ended there alone.
    let order = order(id);
    let started = first.start(&order, never()).await.unwrap();
    let found = first.find_recorded(id, recorded.as_deref()).await.unwrap();
    assert_eq!(found, Found::Running(started.reference.clone()));
    let reference = Some(&started.reference);
    let found = second.find(id, reference).await.unwrap();
    assert!(matches!(found, Found::Unknown { .. }), "{found:?}");
    let stopped = second.stop(id, reference, GRACE).await.unwrap();
    assert!(
        matches!(stopped, Stopped::NotPossible { .. }),
        "{stopped:?}"
    );
    assert_eq!(alive(id).len(), 1);
    end(&*first, id, reference).await;
}

#[tokio::test]
async fn a_start_is_repeated_although_its_command_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("agent");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = json!({"local": {"command": program}});
    let (local, order) = (local(&config, folder.path()), order(SpinUpId::generate()));
    let started = local.start(&order, never()).await.unwrap();
    std::fs::remove_file(&program).unwrap();
    let again = local.start(&order, never()).await.unwrap();
    assert!(again.existing);
    assert_eq!(again.reference, started.reference);
    end(&*local, order.spin_up, Some(&started.reference)).await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_before_it_begins_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (local, order) = (
        local(&json!({"command": "exec sleep 600"}), folder.path()),
        order(SpinUpId::generate()),
    );
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = local.start(&order, cancel).await.unwrap_err();
    assert_eq!(error.kind(), StartErrorKind::Cancelled);
    assert_eq!(
        local.find(order.spin_up, None).await.unwrap(),
        Found::Absent
    );
}
