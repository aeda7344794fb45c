//! A coordinator that stands still while another one takes over.

use std::sync::mpsc;

use anyhow::{Context as _, Result};
use loom_coordinator::coordinator::Coordinator;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{PATIENCE, THREADS};

/// A coordinator that stands still, as by SIGSTOP: none of its threads goes on. Dropped, it is ended at once.
pub struct Former {
    runtime: Option<Runtime>,
    /// Each holds a thread until it is dropped.
    holds: Mutex<Vec<mpsc::Sender<()>>>,
    _coordinator: Coordinator,
}

impl Former {
    /// Holds all threads of a runtime.
    pub(super) async fn stand_still(runtime: Runtime, coordinator: Coordinator) -> Result<Self> {
        let mut stands = Vec::new();
        let former = Self {
            holds: Mutex::default(),
            runtime: Some(runtime),
            _coordinator: coordinator,
        };
        for runtime in former.runtime.iter().cycle().take(THREADS) {
            let (hold, held) = mpsc::channel::<()>();
            let (tell, told) = oneshot::channel();
            runtime.spawn(async move {
                let _ = tell.send(());
                // Ends with an error when the hold is dropped.
                let _ = held.recv();
            });
            former.holds.lock().push(hold);
            stands.push(told);
        }
        for told in stands {
            let held = timeout(PATIENCE, told).await;
            held.context("a thread of the coordinator cannot be held")??;
        }
        Ok(former)
    }

    /// The end of its standstill, as SIGCONT.
    pub fn go_on(&self) {
        self.holds.lock().clear();
    }
}

impl Drop for Former {
    fn drop(&mut self) {
        // In this order: what stands still does nothing any more.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.go_on();
    }
}
