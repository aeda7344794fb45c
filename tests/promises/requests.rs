use anyhow::Result;
use futures_util::TryStreamExt as _;
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::work::WorkStatus;
use loom_protocol::{AgentGuid, Encoding, ErrorCode, ProjectId, WireError, WorkId, names};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn messagepack_says_what_json_says() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(2).spawn().await?;
    let packed = async |action: &str, body: Value| -> Result<Value, WireError> {
        project.call_in(Encoding::MessagePack, action, &body).await
    };

    // What was submitted in one is read in the other, bodies and all.
    let context = json!({"deep": {"list": [1, -2, 3.5, null, true, "ü"]}, "big": 1_u64 << 60});
    let item = json!({
        "description": "packed", "capability": "rust", "priority": 9, "contextData": context,
        "labels": {"team": "a"}, "maxAttempts": 5,
    });
    let id = packed("work.submit", item).await?["id"].clone();
    let claim = json!({"guid": agent.guid(), "claimId": "c", "start": true});
    let mut claimed = packed("work.claim", claim.clone()).await?;
    let mut same = project.request("work.claim", claim).await?;
    for answer in [&mut claimed, &mut same] {
        // When it expires is told from now.
        let lease = &mut answer["items"][0]["lease"];
        (lease["expiresAt"], lease["expiresInMs"]) = (json!("then"), json!("then"));
    }
    assert_eq!(claimed, same);
    assert_eq!(claimed["items"][0]["workItem"]["contextData"], context);
    let result = json!({"output": context, "artifacts": ["a"], "summary": "s"});
    let report = json!({"id": id, "guid": agent.guid(), "attempt": 1, "result": result});
    packed("work.complete", report).await?;
    let item = project.request("work.get", json!({ "id": id })).await?;
    assert_eq!(item["result"]["output"], context);

    for (action, body) in [
        ("work.get", json!({ "id": id })),
        ("work.get", json!({ "id": WorkId::generate() })),
        ("work.list", json!({})),
        ("work.explain", json!({ "id": id })),
        ("work.cancel", json!({ "id": id })),
        (
            "work.submit",
            json!({"capability": " a", "description": "d"}),
        ),
        (
            "work.submit",
            json!({"capability": "rust", "description": "d", "priority": 5.5}),
        ),
        ("agents.get", json!({ "guid": agent.guid() })),
        ("agents.list", json!({"capability": "rust"})),
        ("queue.info", json!({})),
        ("work.nothing", json!({})),
    ] {
        let json = project.request(action, body.clone()).await;
        assert_eq!(packed(action, body).await, json, "{action}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn who_speaks_registers_again_and_who_is_looked_for_is_not_there() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, unknown) = (fleet.project().await?, fleet.project().await?);
    let gone = project.agent("rust").spawn().await?.guid();
    let work = json!({"guid": gone, "id": WorkId::generate(), "attempt": 1});
    let guid = json!({ "guid": gone });
    project.request("agents.deregister", guid.clone()).await?;
    for (action, body, code) in [
        ("agents.deregister", &guid, ErrorCode::NotRegistered),
        ("agents.heartbeat", &guid, ErrorCode::NotRegistered),
        ("work.claim", &guid, ErrorCode::NotRegistered),
        ("agents.get", &guid, ErrorCode::NotFound),
        ("agents.shutdown", &guid, ErrorCode::NotFound),
        // Whoever is gone may still report: whether that counts is the ledger's to say.
        ("work.progress", &work, ErrorCode::NotFound),
    ] {
        let error = project.request(action, body.clone()).await.err();
        assert_eq!(error.map(|e| e.code), Some(code), "{action}");
    }
    for action in ["start", "progress", "complete", "release", "stopped"] {
        let error = unknown
            .request(&format!("work.{action}"), work.clone())
            .await
            .err();
        assert_eq!(
            error.map(|e| e.code),
            Some(ErrorCode::NotRegistered),
            "{action}"
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_micro_service_counts_its_requests() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    assert!(
        project
            .request("work.get", json!({"id": "x"}))
            .await
            .is_err()
    );
    project.request("work.list", json!({})).await?;
    let nats = fleet.nats().connect().await?;
    project
        .eventually("three requests are counted", async || {
            let answer = nats.request("$SRV.STATS.loom", "".into()).await.ok()?;
            let stats: Value = serde_json::from_slice(&answer.payload).ok()?;
            let of = &stats["endpoints"][0];
            let is_true = of["num_requests"] == 3
                && of["num_errors"] == 1
                && of["processing_time"]
                    .as_u64()
                    .is_some_and(|nanos| nanos > 0)
                && of["last_error"].as_str().is_some_and(|e| e.contains("404"));
            is_true.then_some(())
        })
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn unknown_fields_are_ignored_and_named() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let item = |more: Value| {
        let mut item = json!({"description": "d", "capability": "rust"});
        for (field, value) in more.as_object().into_iter().flatten() {
            item[field] = value.clone();
        }
        item
    };
    let colourful = item(json!({"colour": "red", "Priority": 9}));
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let answer: Value = project.call_in(encoding, "work.submit", &colourful).await?;
        let mut ignored: Vec<_> = answer["ignored"]
            .as_array()
            .expect("names")
            .iter()
            .collect();
        ignored.sort_by_key(ToString::to_string);
        assert_eq!(ignored, [&json!("Priority"), &json!("colour")]);
    }
    let several = json!({"items": [item(json!({})), colourful]});
    let answer = project.request("work.submit", several).await?;
    assert_eq!(answer["items"][0].get("ignored"), None);
    assert_eq!(
        answer["items"][1]["ignored"].as_array().map(Vec::len),
        Some(2)
    );
    // A context is nobody's business.
    let inner = item(json!({"contextData": {"colour": "red"}}));
    assert_eq!(project.submit(inner).await?.ignored, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn strict_refuses_unknown_fields() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let item = json!({"description": "d", "capability": "rust", "colour": "red", "strict": true});
    let refused = project.submit(item).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.message.contains("colour"), "{refused}");
    let item = json!({"description": "d", "capability": "rust", "strict": true});
    project.submit(item).await?;
    assert_eq!(project.all_work().await?.len(), 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reserved_fields_are_refused() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for field in ["dependsOn", "group", "budget", "review"] {
        let mut item = json!({"description": "d", "capability": "rust"});
        item[field] = json!([]);
        let refused = project.submit(item.clone()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert!(refused.message.contains(field), "{refused}");
        let answer = project
            .request("work.submit", json!({ "items": [item] }))
            .await?;
        assert_eq!(answer["items"][0]["code"], "invalid-request");
    }
    assert_eq!(project.all_work().await?, []);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn reading_an_unknown_project_creates_nothing() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    for action in ["agents.list", "work.list"] {
        assert_eq!(project.request(action, json!({})).await?, json!([]));
    }
    assert_eq!(
        project.request("queue.info", json!({})).await?["pending"],
        json!({})
    );
    assert_eq!(
        project.request("queue.purge", json!({"all": true})).await?["purged"],
        0
    );
    assert_eq!(project.request("stats", json!({})).await?["total"], 0);
    let (guid, id) = (AgentGuid::generate(), WorkId::generate());
    for (action, body, code) in [
        ("agents.get", json!({ "guid": guid }), ErrorCode::NotFound),
        ("work.get", json!({ "id": id }), ErrorCode::NotFound),
        ("work.explain", json!({ "id": id }), ErrorCode::NotFound),
        ("work.cancel", json!({ "id": id }), ErrorCode::NotFound),
        (
            "agents.heartbeat",
            json!({ "guid": guid }),
            ErrorCode::NotRegistered,
        ),
        (
            "agents.deregister",
            json!({ "guid": guid }),
            ErrorCode::NotRegistered,
        ),
        (
            "work.claim",
            json!({ "guid": guid }),
            ErrorCode::NotRegistered,
        ),
    ] {
        assert_eq!(
            project.request(action, body).await.unwrap_err().code,
            code,
            "{action}"
        );
    }
    let page: Value = project.api()?.get(&["work"], &[]).await?;
    assert_eq!(
        (&page["count"], &page["workItems"]),
        (&json!(0), &json!([]))
    );

    let form = project.id().stream_form();
    let streams: Vec<String> = project.jetstream().stream_names().try_collect().await?;
    let of_project = |name: &&String| name.to_ascii_uppercase().replace('-', "_").contains(&form);
    assert_eq!(streams.iter().find(of_project), None);
    assert!(project.parts().is_err(), "it is awake");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn project_name_collision() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    let alike = ProjectId::new(&project.id().as_str().replace('-', "_"))?;
    let subject = names::request(&alike, "work.submit");
    let item = json!({"description": "d", "capability": "rust"}).to_string();
    let answer = project.client().request(subject, item.into()).await?;
    let refused: WireError = serde_json::from_slice(&answer.payload)?;
    assert_eq!(refused.code, ErrorCode::ProjectNameCollision);
    assert!(refused.message.contains(project.id().as_str()), "{refused}");
    assert_eq!(project.all_work().await?.len(), 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_cannot_be_read_is_refused_with_a_sentence() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let whole = json!({"description": "d", "capability": "rust"});
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let bytes = encoding.encode(&whole)?;
        let half = bytes[..bytes.len() / 2].to_vec();
        let twice = [&bytes[..], &bytes[..]].concat();
        for broken in [half, twice, b"\xff\xfe".to_vec(), Vec::new()] {
            for action in [
                "work.submit",
                "agents.register",
                "work.claim",
                "work.complete",
            ] {
                let refused = refusal(&project, encoding, action, broken.clone()).await?;
                // Nothing at all reads as an empty object, of which each field is checked by itself.
                assert_eq!(refused.code.status(), 400, "{action}: {refused}");
                assert!(refused.message.len() > 10);
            }
        }
    }
    assert!(
        project.parts().is_err(),
        "a refused request has woken the project"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn names_that_can_be_none_are_refused() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let long = "x".repeat(300);
    for bad in ["", " a", "a ", "tab\t", "nul\0", &long] {
        let item = |field: &str| {
            let mut item = json!({"description": "d", "capability": "rust"});
            item[field] = json!(bad);
            item
        };
        for field in [
            "capability",
            "boundary",
            "requiredAgentType",
            "preferredAgentType",
        ] {
            let refused = project.submit(item(field)).await.unwrap_err();
            assert_eq!(
                refused.code,
                ErrorCode::InvalidToken,
                "{field} {bad:?}: {refused}"
            );
            assert!(refused.message.contains(field), "{refused}");
        }
        let agent = json!({"handle": "a", "agentType": "fake", "capabilities": [bad]});
        let refused = project.request("agents.register", agent).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidToken, "{bad:?}");
    }
    for harmless in ["node.js", "c++", "a.b.c", "a b", "*", ">", "schön"] {
        project.submit_plain(harmless).await?;
    }
    assert_eq!(project.all_work().await?.len(), 7);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn limits_are_named_when_they_are_passed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    for (field, value, code) in [
        ("priority", json!(0), ErrorCode::InvalidRequest),
        ("priority", json!(11), ErrorCode::InvalidRequest),
        ("priority", json!(5.5), ErrorCode::InvalidRequest),
        (
            "description",
            json!("x".repeat(128 * 1024 + 1)),
            ErrorCode::TooLarge,
        ),
        (
            "contextData",
            json!("x".repeat(384 * 1024)),
            ErrorCode::TooLarge,
        ),
    ] {
        let mut item = json!({"description": "d", "capability": "rust"});
        item[field] = value;
        let refused = project.submit(item).await.unwrap_err();
        assert_eq!(refused.code, code, "{field}: {refused}");
        assert!(refused.message.contains(field), "{refused}");
    }

    // A result that is too large leaves the lease where it is.
    let id = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    let large = json!({"result": {"output": "x".repeat(384 * 1024)}});
    let refused = agent.report("complete", &item, large).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(project.work(id).await?.status, WorkStatus::Assigned);
    agent.complete(&item, "stored elsewhere").await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_claim_gives_no_more_than_one_answer_carries() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").slots(8).spawn().await?;
    // Numbers of which MessagePack takes more than twice the bytes.
    let body = json!(vec![1.5; 75_000]);
    for _ in 0..4 {
        let item = json!({"description": "d", "capability": "rust", "contextData": body});
        project.submit(item).await?;
    }
    let claim = json!({"guid": agent.guid(), "max": 4});
    for _ in 0..4 {
        let given: Value = project
            .call_in(Encoding::MessagePack, "work.claim", &claim)
            .await?;
        assert_eq!(given["items"].as_array().map(Vec::len), Some(1));
    }
    for _ in 0..8 {
        project.submit_plain("rust").await?;
    }
    assert_eq!(agent.claim(json!({"max": 8})).await?.len(), 4);
    Ok(())
}

/// The error that a request of these bytes is answered with.
async fn refusal(
    project: &TestProject,
    encoding: Encoding,
    action: &str,
    payload: Vec<u8>,
) -> Result<WireError> {
    let answer = project.exchange(encoding, action, payload).await?;
    let marked = answer
        .headers
        .is_some_and(|h| h.get(ERROR_CODE_HEADER).is_some());
    anyhow::ensure!(marked, "{action} was carried out");
    Ok(encoding.decode(&answer.payload)?)
}
