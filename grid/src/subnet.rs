//! The part of the network that a host is seen in: what one owner of many names has to have more than one of.
//!
//! Names cost nothing and addresses little, but addresses that are far from each other cost something. So an audit is of a host that is
//! seen elsewhere than the one that it audits, where there is one. What counts is the address that a host's packets surely come
//! from, and not what it says; hosts that are only reached through a relay are all taken for one network.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// A network: 24 bits of an IPv4 address or 48 of an IPv6 address, which is what one site is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subnet {
    /// Whatever is behind a relay.
    #[default]
    Relayed,
    /// Of IPv4, also where it is written as IPv6.
    V4([u8; 3]),
    /// Of IPv6.
    V6([u8; 6]),
}

impl Subnet {
    /// Whether it says nothing of where a host is.
    pub fn is_relayed(&self) -> bool {
        *self == Self::Relayed
    }
}

impl From<IpAddr> for Subnet {
    fn from(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => {
                let [a, b, c, _] = addr.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(addr) => {
                let [a, b, c, d, e, f, ..] = addr.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// As a prefix, e.g. `203.0.113.0/24`, `2001:db8:7::/48`, or `relayed`.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Relayed => f.write_str("relayed"),
            Self::V4([a, b, c]) => write!(f, "{}/24", std::net::Ipv4Addr::new(a, b, c, 0)),
            Self::V6([a, b, c, d, e, g]) => {
                let [first, second, third] = [[a, b], [c, d], [e, g]].map(u16::from_be_bytes);
                write!(f, "{}/48", std::net::Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(addr: &str) -> String {
        Subnet::from(addr.parse::<IpAddr>().unwrap()).to_string()
    }

    #[test]
    fn an_address_is_in_the_network_of_its_site() {
        assert_eq!(of("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(of("2001:db8:7:1::5"), "2001:db8:7::/48");
        assert_eq!(of("::ffff:203.0.113.1"), "203.0.113.0/24", "however it is written");
    }
}
