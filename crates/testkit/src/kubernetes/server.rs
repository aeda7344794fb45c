//! The API server: who asks, what for, and the answer.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::status::{Status, answer};
use super::store::{Key, Kind, NOW};
use super::{Failure, NAMESPACE, Recorded, World, validate, watching};

/// What is done by a request.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) verb: &'static str,
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    part: Option<String>,
    query: Vec<(String, String)>,
}

impl Asked {
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.iter();
        let found = pairs.find(|(there, _)| there == name);
        found.map(|(_, value)| value.as_str())
    }

    fn resource(&self) -> String {
        let part = self.part.as_ref().map(|part| format!("/{part}"));
        self.kind.plural().to_owned() + &part.unwrap_or_default()
    }

    fn key(&self) -> Key {
        let name = self.name.clone().unwrap_or_default();
        (self.kind, self.namespace.clone(), name)
    }
}

pub(super) fn service(world: Arc<World>) -> Router {
    Router::new().fallback(take).with_state(world)
}

async fn take(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    world.rules.lock().requests.push(Recorded {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let token = format!("Bearer {}", world.rules.lock().token);
    if headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        != Some(token.as_str())
    {
        return Status::new(401, "Unauthorized", "Unauthorized").response();
    }
    if uri.path() == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
        return review(&world, &body).unwrap_or_else(|status| status.response());
    }
    let Some(asked) = asked(&method, &uri) else {
        let message = "the server could not find the requested resource";
        return Status::new(404, "NotFound", message).response();
    };
    let failure = world
        .rules
        .lock()
        .next_failure(asked.verb, &asked.resource());
    match failure {
        Some(Failure::Status(code, after)) => {
            let reason = match code {
                410 => "Expired",
                429 => "TooManyRequests",
                _ => "InternalError",
            };
            let status = Status::new(code, reason, "the test lets it fail");
            return status.after(after).response();
        }
        Some(Failure::LostRequest) => return broken(),
        Some(Failure::Hangs) => std::future::pending().await,
        Some(Failure::LostAnswer) | None => {}
    }
    let done = done(&world, &asked, &headers, &body);
    if matches!(failure, Some(Failure::LostAnswer)) {
        return broken();
    }
    done.unwrap_or_else(|status| status.response())
}

/// An answer that breaks off.
fn broken() -> Response<Body> {
    let lost = std::io::Error::other("the connection of the test is lost");
    let stream = futures_util::stream::iter([Ok(Bytes::from("{")), Err(lost)]);
    Response::new(Body::from_stream(stream))
}

fn asked(method: &Method, uri: &Uri) -> Option<Asked> {
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let (group, rest) = match path.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, "v1", rest @ ..] => (*group, rest),
        _ => return None,
    };
    let ["namespaces", namespace, plural, rest @ ..] = rest else {
        return None;
    };
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| (kind.group(), kind.plural()) == (group, *plural))?;
    let query: Vec<(String, String)> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    let is_watch = query
        .iter()
        .any(|(name, value)| name == "watch" && value == "true");
    let name = rest.first().map(|name| (*name).to_owned());
    let verb = match (method, &name) {
        (&Method::POST, None) => "create",
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) if is_watch => "watch",
        (&Method::GET, None) => "list",
        (&Method::PUT, Some(_)) => "update",
        (&Method::PATCH, Some(_)) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        _ => return None,
    };
    Some(Asked {
        verb,
        kind,
        namespace: (*namespace).to_owned(),
        name,
        part: rest.get(1).map(|part| (*part).to_owned()),
        query,
    })
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: String = rest.by_ref().take(2).map(char::from).collect();
        bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether whoever asks may do something.
fn review(world: &World, body: &[u8]) -> Result<Response<Body>, Status> {
    let mut review: Value =
        serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?;
    let text = |field: &str| validate::text(&review, &format!("/spec/resourceAttributes/{field}"));
    let resource = match text("subresource") {
        part if part.is_empty() => text("resource"),
        part => format!("{}/{part}", text("resource")),
    };
    let right = (text("verb"), text("group"), resource);
    // Rights are given in one namespace.
    let allowed = text("namespace") == NAMESPACE && world.rules.lock().allowed.contains(&right);
    review["status"] = json!({"allowed": allowed, "reason": "RBAC"});
    Ok(answer(201, &review))
}

fn done(
    world: &Arc<World>,
    asked: &Asked,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let resource = asked.resource();
    let right = (
        asked.verb.to_owned(),
        asked.kind.group().to_owned(),
        resource.clone(),
    );
    let is_allowed = world.rules.lock().allowed.contains(&right);
    if !is_allowed || (asked.namespace != NAMESPACE && asked.verb != "create") {
        let message = format!(
            "{} is forbidden: User \"system:serviceaccount:loom:loom\" cannot {} resource {resource:?} in API group {:?} in the namespace {:?}",
            asked.kind.qualified(),
            asked.verb,
            asked.kind.group(),
            asked.namespace
        );
        return Err(Status::new(403, "Forbidden", message));
    }
    let read = || -> Result<Value, Status> {
        serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))
    };
    match asked.verb {
        "create" => create(world, asked, read()?),
        "update" => update(world, asked, read()?),
        "patch" => {
            let kind = headers
                .get("content-type")
                .and_then(|kind| kind.to_str().ok());
            if kind != Some("application/json-patch+json") {
                let message = "the body of the request was in an unknown format";
                return Err(Status::new(415, "UnsupportedMediaType", message));
            }
            patch(world, asked, &read()?)
        }
        "delete" => delete(
            world,
            asked,
            &if body.is_empty() { json!({}) } else { read()? },
        ),
        "get" if asked.part.is_some() => super::process::log(world, asked),
        "get" => {
            let store = world.store.lock();
            let object = store.get(&asked.key());
            let name = asked.name.as_deref().unwrap_or_default();
            let object = object.ok_or_else(|| Status::not_found(asked.kind, name))?;
            Ok(answer(200, object))
        }
        "list" => watching::list(world, asked),
        _ => watching::watch(world, asked),
    }
}

fn create(world: &World, asked: &Asked, mut object: Value) -> Result<Response<Body>, Status> {
    if asked.namespace != NAMESPACE {
        return Err(Status::no_namespace(&asked.namespace));
    }
    validate::object(asked.kind, &object)?;
    let name = validate::text(&object, "/metadata/name");
    let mut store = world.store.lock();
    let key = (asked.kind, asked.namespace.clone(), name.clone());
    if store.get(&key).is_some() {
        return Err(Status::exists(asked.kind, &name));
    }
    encode_secret(asked.kind, &mut object);
    if asked.query("dryRun") == Some("All") {
        return Ok(answer(201, &object));
    }
    Ok(answer(201, &store.create(key, object)))
}

fn update(world: &World, asked: &Asked, mut object: Value) -> Result<Response<Body>, Status> {
    validate::object(asked.kind, &object)?;
    let (key, mut store) = (asked.key(), world.store.lock());
    let there = store.get(&key);
    let there = there
        .ok_or_else(|| Status::not_found(asked.kind, &key.2))?
        .clone();
    let wanted = &object["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != there["metadata"]["resourceVersion"] {
        return Err(Status::conflict(
            asked.kind,
            &key.2,
            "the object has been modified",
        ));
    }
    encode_secret(asked.kind, &mut object);
    for field in ["uid", "namespace", "creationTimestamp", "resourceVersion"] {
        object["metadata"][field] = there["metadata"][field].clone();
    }
    store.change(&key, |now| *now = object);
    Ok(answer(200, store.get(&key).unwrap_or(&Value::Null)))
}

fn patch(world: &World, asked: &Asked, steps: &Value) -> Result<Response<Body>, Status> {
    let (key, mut store) = (asked.key(), world.store.lock());
    let there = store.get(&key);
    let before = there
        .ok_or_else(|| Status::not_found(asked.kind, &key.2))?
        .clone();
    let failed = || {
        Status::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
    };
    let mut after = before.clone();
    for step in steps.as_array().into_iter().flatten() {
        let path = validate::text(step, "/path");
        let value = step["value"].clone();
        match (step["op"].as_str(), after.pointer_mut(&path)) {
            (Some("test"), Some(there)) if *there == value => {}
            (Some("replace"), Some(there)) => *there = value,
            _ => return Err(failed()),
        }
    }
    let without = |job: &Value| {
        let mut job = job.clone();
        job["spec"]["suspend"] = Value::Null;
        job
    };
    if without(&before) != without(&after) {
        let why = "spec.template: Invalid value: field is immutable";
        return Err(Status::invalid(asked.kind, &key.2, why));
    }
    store.change(&key, |now| *now = after);
    Ok(answer(200, store.get(&key).unwrap_or(&Value::Null)))
}

fn delete(world: &World, asked: &Asked, options: &Value) -> Result<Response<Body>, Status> {
    let (key, mut store) = (asked.key(), world.store.lock());
    let there = store.get(&key);
    let there = there
        .ok_or_else(|| Status::not_found(asked.kind, &key.2))?
        .clone();
    let wanted = &options["preconditions"]["uid"];
    if !wanted.is_null() && *wanted != there["metadata"]["uid"] {
        let why = "Precondition failed: UID in precondition";
        return Err(Status::conflict(asked.kind, &key.2, why));
    }
    let policy = options["propagationPolicy"].as_str();
    match asked.kind {
        Kind::Pod => {
            let asked = options["gracePeriodSeconds"].as_u64();
            mark_deleted(&mut store, &key, asked.unwrap_or(30));
        }
        Kind::Job if policy == Some("Foreground") => store.change(&key, |job| {
            job["metadata"]["deletionTimestamp"] = NOW.into();
            job["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        }),
        _ => store.remove(&key),
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(answer(200, store.get(&key).unwrap_or(&status)))
}

/// Asks a pod to end. A second time it can only be asked to hurry.
pub(super) fn mark_deleted(store: &mut super::Store, key: &Key, grace: u64) {
    store.change(key, |pod| {
        let before = pod["metadata"]["deletionGracePeriodSeconds"].as_u64();
        pod["metadata"]["deletionTimestamp"] = NOW.into();
        pod["metadata"]["deletionGracePeriodSeconds"] =
            before.map_or(grace, |before| before.min(grace)).into();
    });
}

/// What is written as text is kept in Base64.
fn encode_secret(kind: Kind, object: &mut Value) {
    if kind != Kind::Secret {
        return;
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let texts = fields.remove("stringData").unwrap_or_default();
    for (name, value) in texts.as_object().into_iter().flatten() {
        let value = STANDARD.encode(value.as_str().unwrap_or_default());
        object["data"][name] = value.into();
    }
}
