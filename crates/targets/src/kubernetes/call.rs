//! One request to the API server: what is done to which resource, as a Role names both. How it is sent is in [`api`](super::api).

use std::fmt::Write as _;

use http::{Method, Request};
use kube::client::Body;
use serde::Serialize;

/// What is done to a resource, as a Role names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Get,
    List,
    Watch,
    Update,
    Patch,
    Delete,
}

impl Verb {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Create => Method::POST,
            Self::Get | Self::List | Self::Watch => Method::GET,
            Self::Update => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Jobs,
    Secrets,
    Pods,
    Logs,
    AccessReviews,
}

impl Resource {
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Jobs => "batch",
            Self::Secrets | Self::Pods | Self::Logs => "",
            Self::AccessReviews => "authorization.k8s.io",
        }
    }

    /// Its name in a Role, and the name of a part of it.
    pub(super) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Jobs => ("jobs", ""),
            Self::Secrets => ("secrets", ""),
            Self::Pods => ("pods", ""),
            Self::Logs => ("pods", "log"),
            Self::AccessReviews => ("selfsubjectaccessreviews", ""),
        }
    }

    pub(super) fn words(self) -> String {
        let (name, part) = self.names();
        let slash = if part.is_empty() { "" } else { "/" };
        match self.group() {
            "" => format!("{name}{slash}{part}"),
            group => format!("{name}{slash}{part} (of the group {group})"),
        }
    }

    fn path(self, namespace: &str, object: Option<&str>) -> String {
        let group = match self.group() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        let (name, part) = self.names();
        let object = object.map(|name| format!("/{name}")).unwrap_or_default();
        let part = match part {
            "" => String::new(),
            part => format!("/{part}"),
        };
        match self {
            // It is of no namespace.
            Self::AccessReviews => format!("{group}/{name}"),
            _ => format!("{group}/namespaces/{namespace}/{name}{object}{part}"),
        }
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) verb: Verb,
    pub(super) resource: Resource,
    name: Option<&'a str>,
    query: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(super) const fn new(verb: Verb, resource: Resource) -> Self {
        Self {
            verb,
            resource,
            name: None,
            query: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn of(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: &impl Serialize) -> Self {
        // What is written here are plain structures, which always become JSON.
        self.body = serde_json::to_vec(body).unwrap_or_default();
        self
    }

    pub(super) fn request(&self, namespace: &str) -> Result<Request<Body>, http::Error> {
        let path = self.resource.path(namespace, self.name);
        let query: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let content = match self.verb {
            Verb::Patch => "application/json-patch+json",
            _ => "application/json",
        };
        let mut request = Request::builder()
            .method(self.verb.method())
            .uri(format!("{path}{mark}{}", query.join("&")))
            .header("accept", "application/json")
            .header("user-agent", concat!("loom/", env!("CARGO_PKG_VERSION")));
        if !self.body.is_empty() {
            request = request.header("content-type", content);
        }
        request.body(Body::from(self.body.clone()))
    }
}

/// One value of a query.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        for (resource, name, path) in [
            (
                Resource::Jobs,
                Some("a"),
                "/apis/batch/v1/namespaces/n/jobs/a",
            ),
            (Resource::Secrets, None, "/api/v1/namespaces/n/secrets"),
            (Resource::Logs, Some("p"), "/api/v1/namespaces/n/pods/p/log"),
            (
                Resource::AccessReviews,
                None,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            ),
        ] {
            assert_eq!(resource.path("n", name), path);
        }
        let call = Call::new(Verb::List, Resource::Pods).with("labelSelector", "loom/a=b c");
        let request = call.request("n").unwrap();
        assert_eq!(
            request.uri().to_string(),
            "/api/v1/namespaces/n/pods?labelSelector=loom%2Fa%3Db%20c"
        );
    }
}
