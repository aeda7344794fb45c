//! A gate at a step of a birth: what comes there waits until it is opened, or for ever.

use std::sync::Arc;

use anyhow::Result;
use futures_util::FutureExt as _;
use loom_actors::target_manager::{BirthStep, BirthStepHook};
use loom_testkit::fleet::PATIENCE;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

#[derive(Clone, Default)]
pub(crate) struct Gate {
    closed: Arc<Mutex<Option<BirthStep>>>,
    reached: watch::Sender<bool>,
    opened: watch::Sender<u64>,
}

impl Gate {
    pub(crate) fn hook(&self) -> BirthStepHook {
        let this = self.clone();
        BirthStepHook::new(move |step| {
            let this = this.clone();
            async move {
                if *this.closed.lock() == Some(step) {
                    let mut opened = this.opened.subscribe();
                    this.reached.send_replace(true);
                    // Its sender is here.
                    let _ = opened.changed().await;
                }
            }
            .boxed()
        })
    }

    /// Whoever has done this step from now on waits.
    pub(crate) fn close(&self, step: BirthStep) {
        self.reached.send_replace(false);
        *self.closed.lock() = Some(step);
    }

    /// Nobody else has to wait; whoever does still does.
    pub(crate) fn let_others_pass(&self) {
        *self.closed.lock() = None;
    }

    /// Whoever waits goes on.
    pub(crate) fn open(&self) {
        self.let_others_pass();
        self.opened.send_modify(|times| *times += 1);
    }

    /// Waits until somebody waits.
    pub(crate) async fn reached(&self) -> Result<()> {
        let mut reached = self.reached.subscribe();
        timeout(PATIENCE, reached.wait_for(|reached| *reached)).await??;
        Ok(())
    }
}
