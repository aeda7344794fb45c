//! The API, over NATS and over HTTP: each of the two decodes a request, calls one method of the service layer, encodes the answer.

pub mod nats;
pub mod rest;
