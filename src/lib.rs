//! The program `loom` as a library: service layer, doors, settings, command line.

pub mod agent_run;
pub mod service;
