//! The program `loom`.

use std::process::ExitCode;

/// A request allocates and frees some dozens of times, often what another thread has allocated.
/// It asks for no huge pages: of those, hardly filled, a coordinator would hold more than 10 MiB. Where the system gives
/// them unasked (`transparent_hugepage=always`) that changes nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before any TLS client is made; it fails only where a provider is installed already.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    loom_coordinator::cli::main()
}
