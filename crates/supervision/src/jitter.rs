//! Randomness as a value.

use std::fmt;
use std::sync::Arc;

/// Gives numbers in `0.0..1.0`, to spread what would otherwise happen at the same moment. Cheap to clone.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Jitter {
    /// A different number each time.
    pub fn random() -> Self {
        Self(Arc::new(fastrand::f64))
    }

    /// The same number each time, for tests.
    pub fn fixed(value: f64) -> Self {
        Self(Arc::new(move || value))
    }

    /// The next number.
    pub fn next(&self) -> f64 {
        (self.0)()
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self::random()
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}
