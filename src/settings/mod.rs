//! What an operator may set: defaults, then the file, then the environment, then flags.
//!
//! The names of the keys are a contract. Nothing is guessed: an unknown key, a number without its
//! unit or two values that contradict each other end the program with a sentence that names the
//! place, the key and the remedy.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | every key, said once: its default, what it takes and its sentence (those of actors: [`loom_actors::settings`]) |
//! | [`keys`] | all of them by path, read off the types |
//! | [`load`](mod@load) | the four layers, laid over each other |
//! | [`check`] | rules that concern more than one key |
//! | [`sample`] | `config/loom.toml` |
//! | [`targets`] | targets that the file defines |
//! | [`secret`] | values that nobody prints |

pub mod check;
pub mod error;
pub mod keys;
pub mod load;
pub mod sample;
pub mod secret;
pub mod targets;
pub mod types;
mod value;

pub use loom_actors::nats::server::Profile;

pub use error::{Origin, Problem, SettingsError};
pub use load::{Loaded, Override, Sources, line_of, load};
pub use secret::{Secret, ServerUrl};
pub use targets::{DefinedTarget, DefinedTargets};
pub use types::{ApiSettings, NatsSettings, ProjectsSettings, Settings, TargetsSettings};
