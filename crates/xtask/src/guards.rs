//! Rules of the house that no compiler knows.

mod layers;
mod names;
mod rooms;
mod text;

pub use layers::layers;
pub use text::text;
