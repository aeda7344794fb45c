//! The doors: each decodes a request, calls one method of the service layer, encodes the answer.

pub mod nats;
pub mod rest;
