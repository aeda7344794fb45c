//! The way back: `ssh -N -R`.

use loom_protocol::SpinUpId;
use loom_protocol::target::{Mechanism, MechanismConfig, RawConfig, TargetConfig};
use loom_targets::ssh::{Forward, Tunnel, TunnelState};
use loom_testkit::sshd::TestSshd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use loom_targets::ssh::Tunnels;
use loom_targets::{Reference, StartErrorKind, Surroundings};
use tokio_util::sync::CancellationToken;

use crate::fixture::{PATIENCE, alive, end, launcher, order, until};
use crate::ssh::{config, surroundings};

async fn echoed(port: u16) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"hello").await.ok()?;
    let mut said = vec![0; 5];
    stream.read_exact(&mut said).await.ok()?;
    Some(said)
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_tunnel_leads_here_and_is_opened_again_at_the_same_port() {
    let Some(mut sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let _echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    let raw: RawConfig = serde_json::from_value(config(&sshd)).unwrap();
    let target = TargetConfig::read(Mechanism::Ssh, &raw).unwrap();
    let MechanismConfig::Ssh(config) = target.of().clone() else {
        panic!("another mechanism")
    };
    let program = surroundings(&sshd).ssh;
    let forward = Forward {
        host: "127.0.0.1".to_owned(),
        port: here,
    };
    let tunnel = Tunnel::open(config.clone(), program.clone(), forward.clone(), None);
    let port = tunnel.up_within(PATIENCE).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, echoed(port)).await.unwrap().unwrap(),
        b"hello"
    );

    let mut state = tunnel.state();
    sshd.stop().await.unwrap();
    let down = timeout(
        PATIENCE,
        state.wait_for(|state| matches!(state, TunnelState::Down { .. })),
    )
    .await;
    down.unwrap().unwrap();
    sshd.restart().await.unwrap();
    assert_eq!(tunnel.up_within(PATIENCE).await, Ok(port));
    assert_eq!(
        timeout(PATIENCE, echoed(port)).await.unwrap().unwrap(),
        b"hello"
    );

    drop(tunnel);
    until("the end of the tunnel", || {
        std::net::TcpStream::connect(("127.0.0.1", port))
            .is_err()
            .then_some(())
    })
    .await;
    // Another coordinator opens it at the port that the agents know.
    let tunnel = Tunnel::open(config, program, forward, Some(port));
    assert_eq!(tunnel.up_within(PATIENCE).await, Ok(port));
    assert_eq!(
        timeout(PATIENCE, echoed(port)).await.unwrap().unwrap(),
        b"hello"
    );
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_tunnel_whose_port_somebody_else_took_says_so_and_stands_again_at_that_port_once_it_is_free()
 {
    let Some(mut sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let raw: RawConfig = serde_json::from_value(config(&sshd)).unwrap();
    let target = TargetConfig::read(Mechanism::Ssh, &raw).unwrap();
    let MechanismConfig::Ssh(config) = target.of().clone() else {
        panic!("another mechanism")
    };
    let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = Forward {
        host: "127.0.0.1".to_owned(),
        port: here.local_addr().unwrap().port(),
    };
    let tunnel = Tunnel::open(config, surroundings(&sshd).ssh, forward, None);
    let port = tunnel.up_within(PATIENCE).await.unwrap();

    // While it is down, somebody else listens where it did.
    sshd.stop().await.unwrap();
    let taken = until("the port is free", || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    })
    .await;
    sshd.restart().await.unwrap();
    let mut state = tunnel.state();
    let refused = state.wait_for(|state| {
        matches!(
            state,
            TunnelState::Down {
                is_refused: true,
                ..
            }
        )
    });
    let refused = timeout(PATIENCE, refused).await.unwrap().unwrap().clone();
    let TunnelState::Down { why, .. } = refused else {
        panic!("{refused:?}")
    };
    for part in [
        &format!("port {port} of 127.0.0.1"),
        "it is taken",
        "ss -ltnp",
    ] {
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    }
    assert!(!tunnel.is_up());
    assert_eq!(
        tunnel.port(),
        Some(port),
        "the agents know no other port, so that no other one is opened"
    );

    drop(taken);
    assert_eq!(tunnel.up_within(PATIENCE).await, Ok(port));
}

/// Whether a port of this machine is served.
fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn where_nothing_may_be_forwarded_nothing_is_started_and_the_probe_says_why() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let around = Surroundings {
        tunnels: Tunnels::to("nats://127.0.0.1:4222"),
        ..surroundings(&sshd)
    };
    let mut config = config(&sshd);
    config["reverseTunnel"] = true.into();
    let ssh = launcher(Mechanism::Ssh, &config, &around);
    let seen = ssh.probe(PATIENCE).await.unwrap().seen;
    assert!(seen.contains("tunnel"), "{seen}");

    let folder = sshd.folder();
    let key = std::fs::read_to_string(folder.join("key.pub")).unwrap();
    let keys = format!("no-port-forwarding {key}");
    std::fs::write(folder.join("authorized_keys"), keys).unwrap();
    let why = ssh.probe(PATIENCE).await.unwrap_err().to_string();
    assert!(why.contains("AllowTcpForwarding"), "{why}");
    let order = order(SpinUpId::generate());
    let refused = ssh.start(&order, CancellationToken::new()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), StartErrorKind::Unavailable);
    assert!(
        refused.to_string().contains("no-port-forwarding"),
        "{refused}"
    );
    assert_eq!(alive(order.spin_up), []);
}

#[tokio::test]
#[ignore = "needs an ssh server: run `cargo xtask test`"]
async fn a_tunnel_is_held_while_somebody_needs_it_and_opened_at_the_port_of_the_reference() {
    let Some(sshd) = TestSshd::start().await.unwrap() else {
        return;
    };
    let mut config = config(&sshd);
    config["reverseTunnel"] = true.into();
    let raw: RawConfig = serde_json::from_value(config.clone()).unwrap();
    let target = TargetConfig::read(Mechanism::Ssh, &raw).unwrap();
    let process = || Surroundings {
        tunnels: Tunnels::to("nats://127.0.0.1:4222"),
        ..surroundings(&sshd)
    };
    let first = process();
    let ssh = launcher(Mechanism::Ssh, &config, &first);
    let order = order(SpinUpId::generate());
    let keep = |around: &Surroundings, starts: &[Option<Reference>]| {
        around
            .tunnels
            .keep(order.target_id, &target, &around.ssh, starts);
    };
    keep(&first, &[None]);
    let started = ssh.start(&order, CancellationToken::new()).await.unwrap();
    let Reference::Ssh(there) = &started.reference else {
        panic!("{started:?}");
    };
    let port = there.tunnel_port.unwrap();
    assert!(is_open(port));
    // Killed before it was stored, it is found with its port all the same.
    let found = ssh.find(order.spin_up, None).await.unwrap();
    assert_eq!(
        found,
        loom_targets::Found::Running(started.reference.clone())
    );

    // Another process takes over.
    drop((ssh, first));
    until("the end of the tunnel", || (!is_open(port)).then_some(())).await;
    let second = process();
    keep(&second, &[Some(started.reference.clone())]);
    until("the tunnel of before", || is_open(port).then_some(())).await;
    let ssh = launcher(Mechanism::Ssh, &config, &second);
    end(&*ssh, order.spin_up, Some(&started.reference)).await;
    keep(&second, &[]);
    until("the end of the tunnel", || (!is_open(port)).then_some(())).await;
}
