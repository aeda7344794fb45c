//! What came to one of the servers that a test runs.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path, with the query; of GitHub's API below its address.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The status that it was answered with; 0 where the connection was cut, or as long as it is not answered.
    pub status: u16,
}

impl Received {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}
