//! A set of networks. A look-up costs little for any number of them.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

/// Addresses of any number of networks. A look-up is a binary search. Adjacent networks are joined.
/// Clones share their memory.
///
/// ```
/// use posthaste_server::NetworkSet;
/// let ours: NetworkSet = "10.0.0.0/8, 192.0.2.7, 2001:db8::/32".parse()?;
/// assert!(ours.contains("10.1.2.3".parse()?) && !ours.contains("192.0.2.8".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An IPv4 address within IPv6 (`::ffff:192.0.2.1`) counts as that IPv4 address, in networks and
/// look-ups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// In order; no network is within another.
    networks: Arc<Vec<IpNet>>,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no network: write an address, or one with a prefix such as 192.0.2.0/24 or 2001:db8::/32")]
#[non_exhaustive]
pub struct NetworkSetError {
    /// The text.
    pub text: String,
}

impl NetworkSet {
    /// Adds a network. It is cheaper to [collect](FromIterator) many at once.
    pub fn push(&mut self, network: IpNet) {
        self.extend([network]);
    }

    /// Returns `true` if an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let after = self.networks.partition_point(|network| network.network() <= address);
        after.checked_sub(1).and_then(|at| self.networks.get(at)).is_some_and(|network| network.contains(&address))
    }

    /// Returns `true` if there is no network.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The networks in order, joined where possible.
    pub fn networks(&self) -> &[IpNet] {
        &self.networks
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut set = Self::default();
        set.extend(networks);
        set
    }
}

impl Extend<IpNet> for NetworkSet {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, networks: I) {
        let all: Vec<_> = self.networks.iter().copied().chain(networks.into_iter().map(canonical)).collect();
        let mut all = IpNet::aggregate(&all);
        all.sort_by_key(IpNet::network);
        self.networks = Arc::new(all);
    }
}

impl From<Vec<IpNet>> for NetworkSet {
    fn from(networks: Vec<IpNet>) -> Self {
        networks.into_iter().collect()
    }
}

/// Networks and single addresses, separated by commas or blanks. Empty: no network.
impl FromStr for NetworkSet {
    type Err = NetworkSetError;

    fn from_str(text: &str) -> Result<Self, NetworkSetError> {
        let network = |text: &str| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map_err(|_| NetworkSetError { text: text.to_owned() })
        };
        let texts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty());
        Ok(Self::from(texts.map(network).collect::<Result<Vec<_>, _>>()?))
    }
}

/// Converts a network of IPv4 addresses within IPv6 to IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped = |network: Ipv6Addr| network.to_ipv4_mapped();
    match network {
        IpNet::V6(v6) => {
            let v4 = mapped(v6.network()).zip(v6.prefix_len().checked_sub(96));
            v4.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(network, IpNet::V4)
        }
        IpNet::V4(_) => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_parsed_from_text() {
        for (text, networks) in [
            ("", &[][..]),
            ("10.0.0.0/8", &["10.0.0.0/8"]),
            ("10.1.2.3/8", &["10.0.0.0/8"]),
            ("192.0.2.7", &["192.0.2.7/32"]),
            (" 192.0.2.0/25,192.0.2.128/25\n::1 ,", &["192.0.2.0/24", "::1/128"]),
            ("::ffff:192.0.2.7", &["192.0.2.7/32"]),
        ] {
            let set: NetworkSet = text.parse().unwrap();
            let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(set.networks(), networks, "{text:?}");
        }
        for (text, wrong) in [("10.0.0.0/33", "10.0.0.0/33"), ("::1 10.0.0", "10.0.0"), ("a/8, b", "a/8")] {
            assert_eq!(text.parse::<NetworkSet>().unwrap_err().text, wrong);
        }
    }

    #[test]
    fn an_address_is_found_among_many_networks() {
        let set: NetworkSet =
            ["192.0.2.0/25", "192.0.2.128/25", "10.0.0.0/8", "10.1.0.0/16", "198.51.100.7/32", "2001:db8::/32"]
                .iter()
                .chain(&["::ffff:203.0.113.0/120", "203.0.112.9/24"])
                .map(|text| text.parse::<IpNet>().unwrap())
                .collect();
        for (address, within) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.1.255", false),
            ("192.0.2.0", true),
            ("192.0.2.200", true),
            ("192.0.3.0", false),
            ("198.51.100.6", false),
            ("198.51.100.7", true),
            ("203.0.112.0", true),
            ("203.0.113.200", true),
            ("::ffff:192.0.2.1", true),
            ("::ffff:192.0.4.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), within, "{address}");
        }
        assert!(!NetworkSet::default().contains("0.0.0.0".parse().unwrap()));
        let mut all = NetworkSet::default();
        all.push("128.0.0.0/1".parse().unwrap());
        all.push("0.0.0.0/1".parse().unwrap());
        assert_eq!(all.networks(), ["0.0.0.0/0".parse::<IpNet>().unwrap()]);
        assert!(all.contains("255.255.255.255".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
    }
}
