//! `loom agent run` and `loom work …` inside of it, as processes, against a coordinator as a process.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod by_socket;
mod host;
mod hostile;
mod house;
mod killed;
mod output;
mod programs;
mod programs_given;
mod replaced;
mod rests;
mod told;

use futures_util::StreamExt;
use house::{House, LIMIT, gone};
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{names, work::ListWorkRequest};
use loom_testkit::nats::until_subscribed;
use rustix::process::Signal;
use tokio::time::timeout;

macro_rules! scenario {
    ($(#[$doc:meta])* $name:ident($house:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs a nats-server: run `cargo xtask test`"]
        async fn $name() {
            #[allow(unused_mut, reason = "only some scenarios restart the coordinator")]
            let mut $house = House::open().await;
            $body
        }
    };
}

scenario! {
    a_program_becomes_an_agent_and_its_last_line_of_json_is_the_result(house) {
        let id = house.submit("say hello").await;
        let logs = names::logs(&house.project, id, 1);
        let mut logs = house.client.nats().subscribe(logs).await.unwrap();
        until_subscribed(house.client.nats()).await.unwrap();
        let mut agent = house.agent(
            &["--once", "--agent-type", "parrot"],
            r#"echo "::progress 40 half way"; echo "$1 as $LOOM_WORK_ATTEMPT"; echo '{"summary":"said","output":{"n":1}}'"#,
        );
        let item = house.ended(id).await;
        assert_eq!(item.status, WorkStatus::Completed);
        let result = item.result.unwrap();
        assert_eq!(result.summary.as_deref(), Some("said\n\nsay hello as 1"));
        assert_eq!(result.output.unwrap().as_bytes().as_ref(), br#"{"n":1}"#);
        assert_eq!(item.assigned_to_agent.unwrap().agent_type, "parrot");
        assert!(agent.ended().await.success());
        let mut said = String::new();
        while !said.contains("summary") {
            let message = timeout(LIMIT, logs.next()).await.unwrap().unwrap();
            said.push_str(&String::from_utf8_lossy(&message.payload));
        }
        assert!(said.contains("say hello as 1"), "{said}");
    }
}

scenario! {
    progress_lines_reach_the_item(house) {
        let id = house.submit("x").await;
        let go = house.path("go");
        let _agent = house.agent(
            &["--once"],
            &format!("echo '::progress 40 half way'; until test -e {go}; do sleep 0.05; done"),
        );
        house.until(id, WorkStatus::InProgress).await;
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let item = house.client.get(id).await.unwrap();
            if item.progress == Some(40.0) {
                assert_eq!(item.progress_message.as_deref(), Some("half way"));
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{item:?}");
            // deliberate sleep: between two looks, before the deadline
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        std::fs::write(go, "").unwrap();
        assert_eq!(house.ended(id).await.status, WorkStatus::Completed);
    }
}

scenario! {
    a_temporary_failure_is_tried_again_and_a_permanent_one_is_not(house) {
        let tried = house.path("tried");
        let id = house.submit("second time lucky").await;
        let mut agent = house.agent(
            &["--max-items", "2"],
            &format!("test -e {tried} && exit 0; echo > {tried}; echo no disk >&2; exit 75"),
        );
        let item = house.ended(id).await;
        assert_eq!((item.status, item.attempt, item.attempts), (WorkStatus::Completed, 2, 1));
        assert!(item.errors[0].message.contains("no disk"), "{:?}", item.errors);
        assert!(agent.ended().await.success());

        let id = house.submit("hopeless").await;
        let mut agent = house.agent(&["--once", "--exit-code", "2=permanent"], "exit 2");
        let item = house.ended(id).await;
        assert_eq!((item.status, item.attempts), (WorkStatus::Failed, 1));
        let error = item.error.unwrap();
        assert_eq!((error.code.as_deref(), error.reason), (Some("exit-2"), Reason::AgentError));
        assert_eq!(agent.ended().await.code(), Some(1), "--once tells of the failure");
    }
}

scenario! {
    a_cancel_ends_the_whole_group_and_the_agent_goes_on(house) {
        let id = house.submit("long").await;
        let pids = house.path("pids");
        let _agent = house.agent(
            &["--grace", "1s"],
            &format!("case $1 in long) (trap '' TERM; sleep 300) & echo $$ $! > {pids}; wait;; esac"),
        );
        let pids = house.word("pids").await;
        house.client.cancel(id, "changed my mind").await.unwrap();
        for pid in pids.split_whitespace() {
            gone(pid).await;
        }
        let item = house.client.get(id).await.unwrap();
        assert_eq!(item.status, WorkStatus::Cancelled);
        let next = house.submit("short").await;
        assert_eq!(house.ended(next).await.status, WorkStatus::Completed);
    }
}

scenario! {
    the_first_term_drains_and_takes_no_more(house) {
        let go = house.path("go");
        let began = house.path("began");
        let first = house.submit("first").await;
        let mut agent = house.agent(
            &[],
            &format!("echo > {began}; until test -e {go}; do sleep 0.05; done; echo finished"),
        );
        house.word("began").await;
        let second = house.submit("second").await;
        agent.signal(Signal::TERM);
        let status = || async { house.client.get(second).await.unwrap().status };
        assert_eq!(status().await, WorkStatus::Pending);
        std::fs::write(go, "").unwrap();
        assert!(agent.ended().await.success());
        assert_eq!(house.ended(first).await.status, WorkStatus::Completed);
        assert_eq!(status().await, WorkStatus::Pending);
    }
}

scenario! {
    the_second_term_gives_the_item_back_unspent(house) {
        let pid = house.path("pid");
        let id = house.submit("long").await;
        let mut agent = house.agent(&[], &format!("echo $$ > {pid}; sleep 300"));
        let pid = house.word("pid").await;
        agent.signal(Signal::TERM);
        agent.signal(Signal::INT);
        assert!(agent.ended().await.success());
        gone(&pid).await;
        let item = house.client.get(id).await.unwrap();
        assert_eq!((item.status, item.attempts), (WorkStatus::Pending, 0));
    }
}

scenario! {
    what_the_program_reports_by_itself_counts_and_nothing_after_it(house) {
        let id = house.submit("by itself").await;
        let mut agent = house.agent(
            &["--once"],
            r#""$LOOM_BIN" work progress 30 thinking && "$LOOM_BIN" work complete --summary 'did it' --output '{"n":2}' && exit 9"#,
        );
        let item = house.ended(id).await;
        assert_eq!(item.status, WorkStatus::Completed);
        assert_eq!(item.result.unwrap().summary.as_deref(), Some("did it"));
        assert!(agent.ended().await.success());
        assert_eq!(house.client.get(id).await.unwrap().status, WorkStatus::Completed);

        let id = house.submit("no way").await;
        let mut agent = house.agent(
            &["--once"],
            r#""$LOOM_BIN" work fail --permanent --code nope "$1"; echo '{"summary":"ignored"}'"#,
        );
        let item = house.ended(id).await;
        let error = item.error.unwrap();
        assert_eq!((item.status, error.message.as_str()), (WorkStatus::Failed, "no way"));
        assert_eq!(agent.ended().await.code(), Some(1));
    }
}

scenario! {
    a_report_from_inside_a_lost_attempt_is_refused(house) {
        let id = house.submit("cancelled").await;
        let code = house.path("code");
        let _agent = house.agent(
            &["--grace", "20s"],
            &format!("trap '\"$LOOM_BIN\" work complete; echo $? > {code}; exit' TERM; echo > {code}.began; while :; do sleep 0.05; done"),
        );
        house.word("code.began").await;
        house.client.cancel(id, "enough").await.unwrap();
        assert_eq!(house.word("code").await, "1");
        assert_eq!(house.client.get(id).await.unwrap().status, WorkStatus::Cancelled);
    }
}

scenario! {
    slots_run_side_by_side(house) {
        let mut ids = Vec::new();
        for n in 0..3 {
            ids.push(house.submit(&format!("item{n}")).await);
        }
        // Each waits for all the others.
        let dir = house.dir.path().display();
        let mut agent = house.agent(
            &["--slots", "3", "--max-items", "3"],
            &format!("echo > {dir}/$1; for n in 0 1 2; do until test -e {dir}/item$n; do sleep 0.05; done; done"),
        );
        for id in ids {
            assert_eq!(house.ended(id).await.status, WorkStatus::Completed);
        }
        assert!(agent.ended().await.success());
    }
}

scenario! {
    a_killed_coordinator_takes_no_work_from_a_running_program(house) {
        let go = house.path("go");
        let began = house.path("began");
        let id = house.submit("survivor").await;
        let mut agent = house.agent(
            &["--once"],
            &format!("echo > {began}; until test -e {go}; do sleep 0.05; done; echo through"),
        );
        house.word("began").await;
        house.coordinator.kill_9().await;
        std::fs::write(go, "").unwrap();
        house.coordinator.restart().await.unwrap();
        let item = house.ended(id).await;
        assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
        assert_eq!(item.result.unwrap().summary.as_deref(), Some("through"));
        assert!(agent.ended().await.success());
    }
}

scenario! {
    a_result_outlives_an_agent_that_ends_while_the_coordinator_is_away(house) {
        let go = house.path("go");
        let began = house.path("began");
        let id = house.submit("late").await;
        let mut agent = house.agent(
            &["--once"],
            &format!("echo > {began}; until test -e {go}; do sleep 0.05; done; echo in the stream"),
        );
        house.word("began").await;
        house.coordinator.kill_9().await;
        agent.signal(Signal::TERM);
        std::fs::write(go, "").unwrap();
        agent.ended().await;
        house.coordinator.restart().await.unwrap();
        let item = house.ended(id).await;
        assert_eq!((item.status, item.attempt), (WorkStatus::Completed, 1));
        assert_eq!(item.result.unwrap().summary.as_deref(), Some("in the stream"));
    }
}

scenario! {
    an_agent_without_its_program_takes_nothing(house) {
        let id = house.submit("wait").await;
        let mut command = house.loom();
        command.args(["agent", "run", "-c", "c", "--", "no-such-program-here", "{id}"]);
        let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no-such-program-here") && said.contains("PATH"), "{said}");
        let item = house.client.get(id).await.unwrap();
        assert_eq!((item.status, item.attempt), (WorkStatus::Pending, 0));
    }
}

scenario! {
    a_program_that_vanishes_gives_its_item_back_and_ends_the_agent(house) {
        use std::os::unix::fs::PermissionsExt;

        let program = house.dir.path().join("program");
        std::fs::write(&program, "#!/bin/sh\nrm -f \"$0\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for n in 0..3 {
            house.submit(&format!("item {n}")).await;
        }
        let mut command = house.loom();
        command.args(["agent", "run", "-c", "c", "--"]).arg(&program);
        let output = timeout(LIMIT, command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let items = house.client.list(&ListWorkRequest::default()).await.unwrap().items;
        let count = |status| items.iter().filter(|item| item.status == status).count();
        assert_eq!((count(WorkStatus::Completed), count(WorkStatus::Pending)), (1, 2));
        assert!(items.iter().all(|item| item.attempts == 0), "{items:?}");
    }
}
