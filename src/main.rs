//! The program `loom`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any TLS client is made; it fails only where a provider is installed already.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    loom_coordinator::cli::main()
}
