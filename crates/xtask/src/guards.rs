//! Rules of the house that no compiler knows.

mod layers;
mod text;

pub use layers::layers;
pub use text::text;
