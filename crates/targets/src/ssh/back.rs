//! The way back that a start takes for its agent, and that a probe tries.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Ssh;
use super::tunnel::Tunnel;
use super::tunnels::{Lent, NO_WAY};
use crate::order::StartOrder;
use crate::{ProbeError, StartError, StartErrorKind};

impl Ssh {
    /// The tunnel by which an agent is to reach NATS, its port there, and the order with that.
    pub(super) async fn way_back(
        &self,
        order: &StartOrder,
        cancel: &CancellationToken,
    ) -> Result<(Lent, u16, StartOrder), StartError> {
        let (tunnels, there) = (&self.around.tunnels, self.there());
        let way = tunnels
            .way()
            .ok_or_else(|| StartError::refused(NO_WAY.to_owned()))?;
        let lent = tunnels.lend(
            order.target_id,
            &self.config,
            &self.around.ssh,
            &way.forward,
        );
        let up = tokio::select! {
            up = lent.up(self.connect_limit()) => up,
            () = cancel.cancelled() => {
                return Err(StartError::cancelled(&order.spin_up.to_string()));
            }
        };
        let port = up.map_err(|why| {
            let message = format!("no tunnel (reverseTunnel) leads from {there} here: {why}");
            StartError::new(StartErrorKind::Unavailable, message)
        })?;
        let mut order = order.clone();
        order.nats_url = way.at(port);
        Ok((lent, port, order))
    }

    /// Whether a tunnel can be opened: one is, and closed.
    pub(super) async fn try_tunnel(&self, limit: Duration) -> Result<(), ProbeError> {
        let way = self.around.tunnels.way();
        let way = way.ok_or_else(|| ProbeError(NO_WAY.to_owned()))?;
        let (config, ssh) = (self.config.clone(), self.around.ssh.clone());
        let tunnel = Tunnel::open(config, ssh, way.forward.clone(), None);
        let up = tunnel.up_within(limit).await;
        let there = self.there();
        up.map(drop).map_err(|why| {
            ProbeError(format!(
                "no tunnel (reverseTunnel) leads from {there} here: {why}"
            ))
        })
    }
}
