//! What an API server refuses: fields that there are not, names and labels that are none, what can't run.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::status::Status;
use super::store::Kind;

/// Judges what is to be created or put.
pub(super) fn object(kind: Kind, object: &Value) -> Result<(), Status> {
    match kind {
        Kind::Job => strict::<Job>(kind, object)?,
        Kind::Secret => strict::<Secret>(kind, object)?,
        Kind::Pod => return Err(Status::bad_request("pods are made by Jobs here")),
    }
    let name = text(object, "/metadata/name");
    let refused = |why: String| Status::invalid(kind, &name, &why);
    if object["kind"] != kind.word() || object["apiVersion"] != kind.api_version() {
        let message = format!("the object is no {} of {}", kind.word(), kind.api_version());
        return Err(Status::bad_request(message));
    }
    let longest = if kind == Kind::Job { 63 } else { 253 };
    if !is_name(&name, longest) {
        return Err(refused(format!(
            "metadata.name: Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        )));
    }
    labels(object, "/metadata/labels").map_err(refused)?;
    match kind {
        Kind::Job => job(object).map_err(refused),
        _ => secret(object).map_err(refused),
    }
}

/// Reads an object as the type that it says it is, and refuses what the type does not have.
fn strict<T: DeserializeOwned>(kind: Kind, object: &Value) -> Result<(), Status> {
    let mut unknown = Vec::new();
    let read: Result<T, _> =
        serde_ignored::deserialize(object, |path| unknown.push(path.to_string()));
    let word = kind.word();
    let version = kind.api_version();
    if let Err(error) = read {
        let message =
            format!("{word} in version {version:?} cannot be handled as a {word}: {error}");
        return Err(Status::bad_request(message));
    }
    // What Option is in between tells itself by a question mark.
    let unknown: Vec<String> = unknown.iter().map(|path| path.replace(".?", "")).collect();
    match unknown.first() {
        None => Ok(()),
        Some(field) => Err(Status::bad_request(format!(
            "{word} in version {version:?} cannot be handled as a {word}: strict decoding error: unknown field {field:?}"
        ))),
    }
}

fn job(job: &Value) -> Result<(), String> {
    let pod = "/spec/template/spec";
    labels(job, "/spec/template/metadata/labels")?;
    match text(job, &format!("{pod}/restartPolicy")).as_str() {
        "Never" | "OnFailure" => {}
        other => {
            return Err(format!(
                "spec.template.spec.restartPolicy: Unsupported value: {other:?}"
            ));
        }
    }
    let containers = job
        .pointer(&format!("{pod}/containers"))
        .and_then(Value::as_array);
    let Some(containers) = containers.filter(|containers| !containers.is_empty()) else {
        return Err("spec.template.spec.containers: Required value".to_owned());
    };
    for container in containers {
        if !is_name(&text(container, "/name"), 63) || text(container, "/image").trim().is_empty() {
            return Err(
                "spec.template.spec.containers[0]: Required value: name and image".to_owned(),
            );
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = text(variable, "/name");
            if name.is_empty() || name.contains('=') || !name.is_ascii() {
                return Err(format!(
                    "spec.template.spec.containers[0].env: Invalid value: {name:?}"
                ));
            }
        }
        for list in ["limits", "requests"] {
            let quantities = container["resources"][list].as_object();
            for (name, quantity) in quantities.into_iter().flatten() {
                if !quantity.as_str().is_some_and(is_quantity) {
                    return Err(format!(
                        "spec.template.spec.containers[0].resources.{list}[{name}]: Invalid value: {quantity}: quantities must match the regular expression"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn secret(secret: &Value) -> Result<(), String> {
    let is_key = |key: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        !key.is_empty() && key.len() <= 253 && key.chars().all(allowed)
    };
    let keys = secret["stringData"].as_object().into_iter().flatten();
    for (key, _) in keys.chain(secret["data"].as_object().into_iter().flatten()) {
        if !is_key(key) {
            return Err(format!(
                "data[{key}]: Invalid value: a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            ));
        }
    }
    for owner in super::store::owners(secret) {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                return Err(format!(
                    "metadata.ownerReferences.{field}: Invalid value: must not be empty"
                ));
            }
        }
    }
    Ok(())
}

fn labels(object: &Value, at: &str) -> Result<(), String> {
    let labels = object.pointer(at).and_then(Value::as_object);
    for (name, value) in labels.into_iter().flatten() {
        let (prefix, short) = name.rsplit_once('/').unwrap_or(("", name));
        if !(prefix.is_empty() || is_name(prefix, 253)) || !is_label(short) || short.is_empty() {
            return Err(format!("metadata.labels: Invalid value: {name:?}"));
        }
        if !value.as_str().is_some_and(is_label) {
            return Err(format!(
                "metadata.labels: Invalid value: {value}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            ));
        }
    }
    Ok(())
}

/// Whether a text is a name by RFC 1123.
fn is_name(text: &str, longest: usize) -> bool {
    let is_part = |part: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let at_end = |c: char| c != '-';
        !part.is_empty()
            && part.chars().all(inside)
            && part.starts_with(at_end)
            && part.ends_with(at_end)
    };
    text.len() <= longest && text.split('.').all(is_part)
}

fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let at_end = |c: char| c.is_ascii_alphanumeric();
    let ends = text.is_empty() || (text.starts_with(at_end) && text.ends_with(at_end));
    text.len() <= 63 && text.chars().all(inside) && ends
}

fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let units = [
        "", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "n", "u",
    ];
    number.parse::<f64>().is_ok() && units.contains(&&text[number.len()..])
}

pub(super) fn text(object: &Value, at: &str) -> String {
    let text = object.pointer(at).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job() -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "a", "labels": {"loom/x": "y"}},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "agent", "image": "i", "resources": {"limits": {"cpu": "500m", "memory": "1.5Gi"}}}],
            }}},
        })
    }

    #[test]
    fn what_no_server_takes_is_refused() {
        assert!(object(Kind::Job, &job()).is_ok());
        let container = "/spec/template/spec/containers/0";
        for (at, field, value, words) in [
            (
                "/spec",
                "backofLimit",
                json!(0),
                "unknown field \"spec.backofLimit\"",
            ),
            (
                container,
                "imagePolicy",
                json!("x"),
                "containers.0.imagePolicy",
            ),
            (
                "/spec",
                "backoffLimit",
                json!("none"),
                "cannot be handled as a Job",
            ),
            ("/metadata", "name", json!("A"), "RFC 1123"),
            ("/metadata", "name", json!("a".repeat(64)), "RFC 1123"),
            (
                "/metadata/labels",
                "loom/x",
                json!("a target"),
                "a valid label",
            ),
            ("/metadata/labels", "a b", json!("y"), "metadata.labels"),
            (
                "/spec/template/spec",
                "restartPolicy",
                json!("Always"),
                "restartPolicy",
            ),
            (
                "/spec/template/spec",
                "containers",
                json!([]),
                "containers: Required",
            ),
            (
                container,
                "resources",
                json!({"limits": {"cpu": "much"}}),
                "quantities",
            ),
            ("", "kind", json!("Pod"), "expected Job"),
            ("", "kind", json!(null), "Job"),
        ] {
            let mut job = job();
            job.pointer_mut(at).unwrap()[field] = value;
            let refused = object(Kind::Job, &job).unwrap_err().json().to_string();
            let words = words.replace('"', "\\\"");
            assert!(refused.contains(&words), "{words}: {refused}");
        }
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"A B": "c"}});
        assert!(object(Kind::Secret, &secret).is_err());
    }
}
