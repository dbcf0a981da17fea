//! The networks that clients are counted by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The size of a network, in leading bits of an address. A client that has one address of a network
/// has the others too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Networks {
    /// Bits of an IPv4 address, also of one that is mapped into IPv6. Default 32. A larger value
    /// counts as 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address. Default 64, the least that a site is given (RFC 6177). A larger
    /// value counts as 128.
    pub ipv6_prefix: u8,
}

impl Default for Networks {
    fn default() -> Self {
        Self { ipv4_prefix: 32, ipv6_prefix: 64 }
    }
}

impl Networks {
    /// The first address of the network of an address.
    pub const fn of(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(self.ipv4_prefix as u32));
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & if let Some(mask) = mask { mask } else { 0 }))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(self.ipv6_prefix as u32));
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & if let Some(mask) = mask { mask } else { 0 }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_as_its_network() {
        for (ipv4_prefix, ipv6_prefix, address, network) in [
            (32, 64, "192.0.2.7", "192.0.2.7"),
            (24, 64, "192.0.2.7", "192.0.2.0"),
            (0, 64, "192.0.2.7", "0.0.0.0"),
            (255, 64, "192.0.2.7", "192.0.2.7"),
            (24, 64, "::ffff:192.0.2.7", "192.0.2.0"),
            (32, 64, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            (32, 48, "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            (32, 128, "2001:db8::6", "2001:db8::6"),
            (32, 255, "2001:db8::6", "2001:db8::6"),
            (32, 0, "2001:db8::6", "::"),
            (32, 64, "::1", "::"),
        ] {
            let networks = Networks { ipv4_prefix, ipv6_prefix };
            assert_eq!(networks.of(address.parse().unwrap()), network.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
