//! The program `loom` as a library: service layer, API, settings, command line.

pub mod access;
pub mod api;
pub mod api_client;
pub mod cli;
pub mod coordinator;
pub mod demo;
pub mod mechanisms;
pub mod metrics;
pub mod running;
pub mod service;
pub mod settings;
pub mod telemetry;
