//! The way back: `ssh -N -R`.

use loom_protocol::target::{Mechanism, MechanismConfig, RawConfig, TargetConfig};
use loom_targets::ssh::{Forward, Tunnel, TunnelState};
use loom_testkit::sshd::TestSshd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::fixture::{PATIENCE, until};
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
    let port = timeout(PATIENCE, tunnel.up()).await.unwrap().unwrap();
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
    assert_eq!(timeout(PATIENCE, tunnel.up()).await.unwrap(), Some(port));
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
    assert_eq!(timeout(PATIENCE, tunnel.up()).await.unwrap(), Some(port));
    assert_eq!(
        timeout(PATIENCE, echoed(port)).await.unwrap().unwrap(),
        b"hello"
    );
}
