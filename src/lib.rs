//! The program `loom` as a library: service layer, doors, settings, command line.

pub mod doors;
pub mod service;
pub mod settings;
