//! Who is there, what they can do and how busy they are.

mod directory;
mod index;

pub use directory::{AgentDirectory, AgentEntry, AgentFilter, AgentsFound};
