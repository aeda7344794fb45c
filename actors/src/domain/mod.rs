//! Pure verdicts: values in, verdict out. No clock, no network, no actor.

pub mod work;
