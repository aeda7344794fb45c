//! What an id, a handle or a taskId means in a request that names no project.

use serde_json::{Value, json};

use super::House;

impl House {
    async fn submit_in(&self, project: &str, id: &str, task: &str) {
        let item = json!({"description": "d", "capability": "c", "id": id, "taskId": task});
        let (status, answer) = self.post(&format!("/p/{project}/api/work"), item).await;
        assert_eq!(status, 201, "{answer}");
    }

    async fn status_in(&self, project: &str, id: &str) -> Value {
        self.get(&format!("/p/{project}/api/work/{id}")).await["status"].clone()
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_name_means_the_default_projects_thing_and_others_only_where_that_has_none() {
    let house = House::open().await;
    let own = house.project.to_string();
    let (everywhere, elsewhere) = (
        "8c1f6e1a-0b5d-4c58-9d6a-5a8f0f3b7a01",
        "9d1f6e1a-0b5d-4c58-9d6a-5a8f0f3b7a02",
    );
    for project in [own.as_str(), "one", "two"] {
        house.submit_in(project, everywhere, "task").await;
    }
    house.submit_in("one", elsewhere, "other").await;
    for name in [everywhere, &everywhere[..8], "task"] {
        let item = house.get(&format!("/api/work/{name}")).await;
        assert_eq!(item["projectId"], json!(own), "{name}");
    }
    for name in [elsewhere, &elsewhere[..8], "other"] {
        let item = house.get(&format!("/api/work/{name}")).await;
        assert_eq!(item["projectId"], "one", "{name}");
    }
    let (status, answer) = house
        .post(&format!("/api/work/{everywhere}/cancel"), json!({}))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(house.status_in(&own, everywhere).await, "cancelled");
    for other in ["one", "two"] {
        assert_eq!(house.status_in(other, everywhere).await, "pending");
    }

    // What two other projects have has to be told apart by the project: of a whole id there is no more to write.
    house.submit_in("two", elsewhere, "other").await;
    let path = format!("/api/work/{elsewhere}/cancel");
    let (status, error) = house.post(&path, json!({})).await;
    let text = error["message"].as_str().unwrap();
    assert_eq!(status, 400, "{error}");
    assert!(
        text.contains("name the project") && !text.contains("more of it"),
        "{text}"
    );
    let candidates = error["details"]["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 2);

    let agent = json!({"handle": "ada", "agentType": "t", "capabilities": ["c"]});
    for project in [own.as_str(), "one"] {
        let subject = format!("coord.{project}.agents.register");
        let client = house.nats.connect().await.unwrap();
        let asked = client.request(subject, agent.to_string().into());
        asked.await.unwrap();
    }
    let agent = house.get("/api/agents/ada").await;
    assert_eq!(agent["projectId"], json!(own));
    house.coordinator.shut_down().await;
}
