//! Where a tunnel leads, and what an agent at its other end is told. Pure.

use super::tunnel::Forward;

/// The port of a NATS whose URL names none.
const NATS_PORT: u16 = 4222;

/// The way to a NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    scheme: String,
    /// Where it listens, as this process reaches it.
    pub(super) forward: Forward,
}

impl Way {
    /// To the first server of these URLs.
    pub(super) fn to(urls: &str) -> Option<Self> {
        let first = urls.split(',').next()?.trim();
        let whole = if first.contains("://") {
            first.to_owned()
        } else {
            format!("nats://{first}")
        };
        let url = reqwest::Url::parse(&whole).ok()?;
        let host = url.host_str().filter(|host| !host.is_empty())?;
        Some(Self {
            scheme: url.scheme().to_owned(),
            forward: Forward {
                host: host.to_owned(),
                port: url.port_or_known_default().unwrap_or(NATS_PORT),
            },
        })
    }

    /// What an agent is told at whose machine it comes out at this port. Without credentials.
    pub(super) fn at(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", self.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_that_of_the_first_server() {
        for (urls, host, port, told) in [
            (
                "nats://127.0.0.1:4300",
                "127.0.0.1",
                4300,
                "nats://127.0.0.1:9",
            ),
            ("nats://a, nats://b:4223", "a", 4222, "nats://127.0.0.1:9"),
            ("localhost:4223", "localhost", 4223, "nats://127.0.0.1:9"),
            (
                "tls://me:secret@[::1]:4223",
                "[::1]",
                4223,
                "tls://127.0.0.1:9",
            ),
        ] {
            let way = Way::to(urls).unwrap();
            assert_eq!(
                (way.forward.host.as_str(), way.forward.port),
                (host, port),
                "{urls}"
            );
            assert_eq!(way.at(9), told, "{urls}");
        }
        assert_eq!(Way::to(""), None);
    }
}
