//! A gate at the steps of a birth: whoever reaches a step stands still there, so that a test can kill it there.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use loom_actors::target_manager::{BirthStep, BirthStepHook};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fleet::PATIENCE;

/// Stops the first one that comes to a step, until [`StepGate::open`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StepGate {
    /// Where it is closed.
    step: Arc<Mutex<Option<BirthStep>>>,
    /// Whether somebody stands there.
    stands: watch::Sender<bool>,
    is_open: watch::Sender<bool>,
}

impl Default for StepGate {
    fn default() -> Self {
        Self {
            step: Arc::default(),
            stands: watch::Sender::new(false),
            is_open: watch::Sender::new(true),
        }
    }
}

impl StepGate {
    /// For [`FleetBuilder::on_birth_step`](crate::fleet::FleetBuilder::on_birth_step).
    pub fn hook(&self) -> BirthStepHook {
        let this = self.clone();
        BirthStepHook::new(move |step| this.clone().pass(step).boxed())
    }

    async fn pass(self, step: BirthStep) {
        let is_stopped = {
            let mut closed = self.step.lock();
            let is_it = *closed == Some(step);
            if is_it {
                *closed = None;
            }
            is_it
        };
        if is_stopped {
            self.stands.send_replace(true);
            // An error says that the gate is gone, and nobody opens it.
            let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
        }
    }

    /// The next one that has done this step stands still.
    pub fn close(&self, step: BirthStep) {
        self.is_open.send_replace(false);
        self.stands.send_replace(false);
        *self.step.lock() = Some(step);
    }

    /// Waits until somebody stands there.
    ///
    /// # Errors
    /// Nobody comes in time.
    pub async fn reached(&self) -> Result<()> {
        let mut stands = self.stands.subscribe();
        let reached = timeout(PATIENCE, stands.wait_for(|stands| *stands)).await;
        reached.context("nobody comes to that step of a birth")??;
        Ok(())
    }

    /// Whoever stands there goes on, and nobody else is stopped.
    pub fn open(&self) {
        *self.step.lock() = None;
        self.is_open.send_replace(true);
    }
}
