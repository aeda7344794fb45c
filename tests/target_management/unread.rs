//! Targets that cannot be read for a while: whoever asks for them waits, and nobody else.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use async_nats::jetstream::stream;
use futures_util::future::{join, join_all};
use loom_protocol::names;
use loom_testkit::fleet::Fleet;
use serde_json::json;

/// More than there are turns on any machine.
const LISTS: usize = 128;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn lists_that_wait_for_targets_to_be_read_hold_up_no_list_of_anything_else() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    // What lies where the bucket should be takes no subject of a bucket, so that it cannot be read.
    let config = stream::Config {
        name: format!("KV_{}", names::targets_bucket(project.id())),
        subjects: vec![format!("elsewhere.{}.>", project.id())],
        ..stream::Config::default()
    };
    project.jetstream().create_stream(config).await?;
    project.submit_plain("rust").await?;
    ensure!(
        !project.parts()?.targets.is_loaded(),
        "the targets were read from something that is no bucket"
    );

    let answered = AtomicUsize::new(0);
    let lists = (0..LISTS).map(|at| {
        let action = ["targets.list", "spin-up.list"][at % 2];
        let (project, answered) = (&project, &answered);
        async move {
            let listed = project.request(action, json!({})).await;
            answered.fetch_add(1, Ordering::Relaxed);
            listed
        }
    });
    let work = async {
        let listed = project.request("work.list", json!({})).await;
        (listed, answered.load(Ordering::Relaxed))
    };
    let (lists, (work, answered_before)) = join(join_all(lists), work).await;
    ensure!(work?.as_array().is_some_and(|items| items.len() == 1));
    ensure!(
        answered_before == 0,
        "the list of work waited for {answered_before} lists of what cannot be read"
    );
    for listed in lists {
        let refused = listed.err().map(|error| error.message).unwrap_or_default();
        ensure!(
            refused.contains("have not been read yet"),
            "it was answered otherwise: {refused:?}"
        );
    }
    Ok(())
}
