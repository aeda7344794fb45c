//! Where a webhook may not go: to the coordinator itself, to link-local addresses, to the metadata of clouds. Whoever may
//! register a target could else read and do there what only this machine may.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses at which clouds tell a machine its secrets, beside those that are link-local.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same in IPv6.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// It is the coordinator's own.
    #[error(
        "{0} is an address of the coordinator itself; no webhook goes there: write another url"
    )]
    Own(SocketAddr),
    /// It is link-local, or gives out the secrets of a cloud machine.
    #[error(
        "{0} is a link-local or metadata address; no webhook goes there unless the coordinator allows it: write another url"
    )]
    LinkLocal(SocketAddr),
    /// It is no address of anybody.
    #[error("{0} is no address that can be called; write another url")]
    Nobody(SocketAddr),
}

/// Judges addresses before they are connected to.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    own: Vec<SocketAddr>,
    allow_link_local: bool,
}

impl Guard {
    /// `own`: where the coordinator listens; an unspecified address (`0.0.0.0`) is every one of this machine.
    pub const fn new(own: Vec<SocketAddr>, allow_link_local: bool) -> Self {
        Self {
            own,
            allow_link_local,
        }
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn judge(&self, address: SocketAddr) -> Result<(), AddressRefusal> {
        self.judge_with(address, is_of_this_machine)
    }

    fn judge_with(
        &self,
        address: SocketAddr,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<(), AddressRefusal> {
        let ip = embedded(address.ip());
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(AddressRefusal::Nobody(address));
        }
        self.judge_meant(address, ip, &is_local)?;
        for meant in by_local_nat64(address.ip()) {
            self.judge_meant(address, meant.into(), &is_local)?;
        }
        Ok(())
    }

    /// Judges where a connection to `address` may end: at `ip`.
    fn judge_meant(
        &self,
        address: SocketAddr,
        ip: IpAddr,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> Result<(), AddressRefusal> {
        let is_own = |own: &SocketAddr| {
            let bound = embedded(own.ip());
            own.port() == address.port()
                && (bound == ip
                    || ((bound.is_unspecified() || bound.is_loopback()) && is_local(ip)))
        };
        if self.own.iter().any(is_own) {
            return Err(AddressRefusal::Own(address));
        }
        if !self.allow_link_local && is_link_local(ip) {
            return Err(AddressRefusal::LinkLocal(address));
        }
        Ok(())
    }
}

/// The address of IPv4 that one of IPv6 stands for: mapped, compatible, by NAT64 or 6to4; else the address itself.
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else {
        return ip;
    };
    let of = |high: u16, low: u16| {
        let [one, two] = high.to_be_bytes();
        let [three, four] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(one, two, three, four))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => of(high, low),
        // `::` and `::1` are of IPv6.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => of(high, low),
        _ => ip,
    }
}

/// The addresses of IPv4 that one of a network's own NAT64 (`64:ff9b:1::/48`) may stand for: which prefix that network took
/// out of it, /48, /56, /64 or /96, only its translator knows. An address in `0.0.0.0/8` is none that anybody has.
fn by_local_nat64(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = match ip {
        IpAddr::V6(v6) if v6.segments()[..3] == [0x64, 0xff9b, 1] => Some(v6.octets()),
        _ => None,
    };
    // The ninth octet is never a part of the address.
    let places = [
        [6, 7, 9, 10],
        [7, 9, 10, 11],
        [9, 10, 11, 12],
        [12, 13, 14, 15],
    ];
    let meant =
        octets.map(|octets| places.map(|places| Ipv4Addr::from(places.map(|at| octets[at]))));
    let meant = meant.into_iter().flatten();
    meant.filter(|v4| v4.octets()[0] != 0)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || METADATA_V6.contains(&v6),
    }
}

/// Whether an address is one of this machine's: only those can be bound to.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(guard: &Guard, address: &str) -> Result<(), AddressRefusal> {
        guard.judge_with(address.parse().unwrap(), |ip| {
            ip.is_loopback() || ip == IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5))
        })
    }

    #[test]
    fn the_coordinator_itself_is_refused_by_any_of_its_addresses() {
        let guard = Guard::new(
            vec![
                "0.0.0.0:3000".parse().unwrap(),
                "192.168.1.9:4222".parse().unwrap(),
            ],
            true,
        );
        for own in [
            "127.0.0.1:3000",
            "127.1.2.3:3000",
            "[::1]:3000",
            "10.0.0.5:3000",
            "[::ffff:127.0.0.1]:3000",
            "[::ffff:10.0.0.5]:3000",
            "[::ffff:0:127.0.0.1]:3000",
            "[64:ff9b::7f00:1]:3000",
            "[64:ff9b:1::7f00:1]:3000",
            "[64:ff9b:1:7f00:0:100::]:3000",
            "[2002:7f00:1::]:3000",
            "192.168.1.9:4222",
            "[::ffff:192.168.1.9]:4222",
        ] {
            assert!(
                matches!(judge(&guard, own), Err(AddressRefusal::Own(_))),
                "{own}"
            );
        }
        for other in [
            "127.0.0.1:3001",
            "10.0.0.6:3000",
            "192.168.1.9:80",
            "8.8.8.8:3000",
        ] {
            assert_eq!(judge(&guard, other), Ok(()), "{other}");
        }
        for nobody in [
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[ff02::1]:1",
        ] {
            assert!(
                matches!(judge(&guard, nobody), Err(AddressRefusal::Nobody(_))),
                "{nobody}"
            );
        }
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_unless_they_are_allowed() {
        let (strict, lax) = (Guard::default(), Guard::new(Vec::new(), true));
        for address in [
            "169.254.169.254:80",
            "169.254.0.1:80",
            "[fe80::1]:80",
            "[febf::1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::169.254.169.254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[64:ff9b:1::a9fe:a9fe]:80",
            "[64:ff9b:1:a9fe:a9:fe00::]:80",
            "[64:ff9b:1:abcd:a9:fea9:fe00:0]:80",
            "[64:ff9b:1:aba9:fe:a9fe::]:80",
            "[2002:a9fe:a9fe::1]:80",
            "100.100.100.200:80",
            "[fd00:ec2::254]:80",
            "168.63.129.16:80",
        ] {
            assert!(
                matches!(judge(&strict, address), Err(AddressRefusal::LinkLocal(_))),
                "{address}"
            );
            assert_eq!(judge(&lax, address), Ok(()), "{address}");
        }
        for address in [
            "10.1.2.3:80",
            "127.0.0.1:80",
            "[2001:db8::1]:80",
            "[64:ff9b:1::808:808]:80",
            "[64:ff9b:2::a9fe:a9fe]:80",
            "[::1]:80",
        ] {
            assert_eq!(judge(&strict, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn this_machine_knows_its_own_addresses() {
        assert!(is_of_this_machine("127.0.0.1".parse().unwrap()));
        assert!(!is_of_this_machine("192.0.2.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn whatever_form_an_address_has_the_verdict_is_the_same(bits: u32, form in 0..6_usize, allow: bool) {
            let v4 = Ipv4Addr::from_bits(bits);
            // These stand for themselves in the old form.
            prop_assume!(form != 1 || bits > 1);
            // What nobody can be called by, no translator calls either.
            prop_assume!(form != 4 || (bits > 0x00ff_ffff && !v4.is_multicast() && !v4.is_broadcast()));
            let [.., high, low] = v4.to_ipv6_mapped().segments();
            let v6 = match form {
                0 => v4.to_ipv6_mapped(),
                1 => v4.to_ipv6_compatible(),
                2 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                3 => Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                4 => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                _ => Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            };
            let guard = Guard::new(vec!["127.0.0.1:9".parse().unwrap()], allow);
            let verdict = |ip: IpAddr| guard.judge_with(SocketAddr::new(ip, 9), |ip| ip.is_loopback()).is_ok();
            prop_assert_eq!(verdict(v4.into()), verdict(v6.into()));
        }
    }
}
