//! What is said beside the output. It knows nothing of how a command ends, which says so by it.

use std::io::{self, Write as _};

/// Writes lines to stderr as they are. Where nobody reads that any more, there is nobody to tell.
pub fn beside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
