//! Which addresses a host on the Internet can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who can have the addresses below a prefix.
#[derive(Clone, Copy)]
enum Reach {
    /// Hosts on the Internet are there.
    Public,
    /// No host, or hosts near this one that the Internet does not reach.
    Special,
    /// Packets go to the IPv4 address in the 32 bits after this many.
    Leads(u32),
}
use Reach::{Leads, Public, Special};

/// Prefixes of IPv6, and of IPv4 as `::ffff:0:0/96`. The longest prefix of an address decides; an
/// address without one is not public.
///
/// They are the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), by
/// their column "Globally Reachable". Two kinds come from other registries: multicast, and
/// addresses that are no unicast address of IPv6.
const PREFIXES: &[(u128, u32, Reach)] = &[
    // IPv4, apart from what follows; so also the IPv4-mapped addresses (RFC 4291 section 2.5.5.2).
    (v4(0, 0, 0, 0), 96, Public),
    // This network (RFC 791).
    (v4(0, 0, 0, 0), 96 + 8, Special),
    // Private use (RFC 1918).
    (v4(10, 0, 0, 0), 96 + 8, Special),
    // Shared address space (RFC 6598).
    (v4(100, 64, 0, 0), 96 + 10, Special),
    // Loopback (RFC 1122).
    (v4(127, 0, 0, 0), 96 + 8, Special),
    // Link-local (RFC 3927).
    (v4(169, 254, 0, 0), 96 + 16, Special),
    // Private use (RFC 1918).
    (v4(172, 16, 0, 0), 96 + 12, Special),
    // IETF protocol assignments (RFC 6890): DS-Lite (RFC 7335), dummy address (RFC 7600), NAT64
    // discovery (RFC 8880).
    (v4(192, 0, 0, 0), 96 + 24, Special),
    // Port Control Protocol anycast (RFC 7723).
    (v4(192, 0, 0, 9), 96 + 32, Public),
    // TURN anycast (RFC 8155).
    (v4(192, 0, 0, 10), 96 + 32, Public),
    // Documentation (RFC 5737).
    (v4(192, 0, 2, 0), 96 + 24, Special),
    // AS112 (RFC 7535), AMT (RFC 7450) and direct delegation AS112 (RFC 7534) are public:
    // 192.31.196.0/24, 192.52.193.0/24, 192.175.48.0/24.
    // 6to4 relay anycast, deprecated (RFC 7526).
    (v4(192, 88, 99, 0), 96 + 24, Special),
    // Private use (RFC 1918).
    (v4(192, 168, 0, 0), 96 + 16, Special),
    // Benchmarking (RFC 2544).
    (v4(198, 18, 0, 0), 96 + 15, Special),
    // Documentation (RFC 5737).
    (v4(198, 51, 100, 0), 96 + 24, Special),
    (v4(203, 0, 113, 0), 96 + 24, Special),
    // Multicast (RFC 5771); reserved (RFC 1112), limited broadcast (RFC 8190).
    (v4(224, 0, 0, 0), 96 + 4, Special),
    (v4(240, 0, 0, 0), 96 + 4, Special),
    // Global unicast (RFC 4291 section 2.4). What IANA has allocated of IPv6 is in here, and
    // nothing beyond it is public: unspecified, loopback and IPv4-compatible ::/96, IPv4-translated
    // ::ffff:0:0:0/96 (RFC 2765), local-use translation 64:ff9b:1::/48 (RFC 8215), discard 100::/64
    // (RFC 6666), dummy 100:0:0:1::/64 (RFC 9780), SRv6 5f00::/16 (RFC 9602), unique-local fc00::/7
    // (RFC 4193), link-local fe80::/10, site-local fec0::/10 (RFC 3879), multicast ff00::/8.
    (v6(0x2000, 0, 0, 0), 3, Public),
    // IPv4 through a translator (RFC 6052 section 2.1).
    (v6(0x64, 0xff9b, 0, 0), 96, Leads(96)),
    // IETF protocol assignments (RFC 2928): Teredo 2001::/32 (RFC 4380), benchmarking 2001:2::/48
    // (RFC 5180), deprecated ORCHID 2001:10::/28 (RFC 4843).
    (v6(0x2001, 0, 0, 0), 23, Special),
    // Anycast for Port Control Protocol (RFC 7723), TURN (RFC 8155) and DNS-SD registration (RFC
    // 9665).
    (v6(0x2001, 1, 0, 0) | 1, 128, Public),
    (v6(0x2001, 1, 0, 0) | 2, 128, Public),
    (v6(0x2001, 1, 0, 0) | 3, 128, Public),
    // AMT (RFC 7450).
    (v6(0x2001, 3, 0, 0), 32, Public),
    // AS112 (RFC 7535).
    (v6(0x2001, 4, 0x112, 0), 48, Public),
    // ORCHIDv2 (RFC 7343), drone remote identification (RFC 9374).
    (v6(0x2001, 0x20, 0, 0), 28, Public),
    (v6(0x2001, 0x30, 0, 0), 28, Public),
    // Documentation (RFC 3849).
    (v6(0x2001, 0xdb8, 0, 0), 32, Special),
    // 6to4 (RFC 3056).
    (v6(0x2002, 0, 0, 0), 16, Leads(16)),
    // Documentation (RFC 9637).
    (v6(0x3fff, 0, 0, 0), 20, Special),
];

/// The bits of an ISATAP interface identifier after the prefix of 64: 0, or 0x200 for unique
/// addresses, then 0x5efe. 32 bits of IPv4 follow (RFC 5214 section 6.1).
const ISATAP: [u32; 2] = [0x5efe, 0x0200_5efe];

/// Returns `true` if a host on the Internet can have the address.
///
/// The IANA special-purpose registries decide, by their column "Globally Reachable". An address
/// that leads to an IPv4 address counts as that one: IPv4-mapped, NAT64 (`64:ff9b::/96`), 6to4 and
/// ISATAP. Teredo, IPv4-compatible and IPv4-translated addresses are never public, and neither is
/// multicast or what is not allocated beyond `2000::/3`.
pub fn is_public(address: IpAddr) -> bool {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    is_public_bits(bits) && !leads_inside_by_isatap(bits)
}

fn is_public_bits(bits: u128) -> bool {
    let has = |prefix: u128, length: u32| (prefix ^ bits).leading_zeros() >= length;
    let longest =
        PREFIXES.iter().filter(|(prefix, length, _)| has(*prefix, *length)).max_by_key(|(_, length, _)| length);
    match longest {
        Some((_, _, Public)) => true,
        Some((_, _, Special)) | None => false,
        // An IPv4 address leads nowhere else.
        Some((_, _, Leads(length))) => is_public_bits(mapped(low32(bits >> (96 - length)))),
    }
}

fn leads_inside_by_isatap(bits: u128) -> bool {
    ISATAP.contains(&low32(bits >> 32)) && !is_public_bits(mapped(low32(bits)))
}

/// The last 32 bits.
const fn low32(bits: u128) -> u32 {
    (bits & 0xffff_ffff) as u32
}

const fn mapped(v4: u32) -> u128 {
    Ipv4Addr::from_bits(v4).to_ipv6_mapped().to_bits()
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u128 {
    Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().to_bits()
}

const fn v6(a: u16, b: u16, c: u16, d: u16) -> u128 {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each first and last address of a block, and its neighbors, where they differ.
    const TABLE: &[(&str, bool)] = &[
        // IPv4.
        ("0.0.0.0", false),
        ("0.255.255.255", false),
        ("1.0.0.0", true),
        ("1.1.1.1", true),
        ("8.8.8.8", true),
        ("9.255.255.255", true),
        ("10.0.0.0", false),
        ("10.255.255.255", false),
        ("11.0.0.0", true),
        ("100.63.255.255", true),
        ("100.64.0.0", false),
        ("100.127.255.255", false),
        ("100.128.0.0", true),
        ("126.255.255.255", true),
        ("127.0.0.1", false),
        ("127.255.255.255", false),
        ("128.0.0.0", true),
        ("169.253.255.255", true),
        ("169.254.169.254", false),
        ("169.255.0.0", true),
        ("172.15.255.255", true),
        ("172.16.0.0", false),
        ("172.31.255.255", false),
        ("172.32.0.0", true),
        ("191.255.255.255", true),
        ("192.0.0.0", false),
        ("192.0.0.1", false),
        ("192.0.0.8", false),
        ("192.0.0.9", true),
        ("192.0.0.10", true),
        ("192.0.0.11", false),
        ("192.0.0.170", false),
        ("192.0.0.171", false),
        ("192.0.0.255", false),
        ("192.0.1.0", true),
        ("192.0.2.1", false),
        ("192.0.3.0", true),
        ("192.31.196.1", true),
        ("192.52.193.1", true),
        ("192.88.98.255", true),
        ("192.88.99.1", false),
        ("192.88.99.2", false),
        ("192.88.100.0", true),
        ("192.167.255.255", true),
        ("192.168.0.0", false),
        ("192.168.255.255", false),
        ("192.169.0.0", true),
        ("192.175.48.1", true),
        ("198.17.255.255", true),
        ("198.18.0.0", false),
        ("198.19.255.255", false),
        ("198.20.0.0", true),
        ("198.51.99.255", true),
        ("198.51.100.7", false),
        ("198.51.101.0", true),
        ("203.0.112.255", true),
        ("203.0.113.9", false),
        ("203.0.114.0", true),
        ("223.255.255.255", true),
        ("224.0.0.1", false),
        ("239.255.255.255", false),
        ("240.0.0.0", false),
        ("255.255.255.254", false),
        ("255.255.255.255", false),
        // IPv4 in IPv6.
        ("::ffff:8.8.8.8", true),
        ("::ffff:127.0.0.1", false),
        ("::ffff:10.0.0.1", false),
        ("::ffff:192.0.2.1", false),
        ("::8.8.8.8", false),
        ("::127.0.0.1", false),
        ("::10.0.0.1", false),
        ("::ffff:0:8.8.8.8", false),
        ("::ffff:0:127.0.0.1", false),
        ("64:ff9b::8.8.8.8", true),
        ("64:ff9b::127.0.0.1", false),
        ("64:ff9b::10.1.2.3", false),
        ("64:ff9b::192.168.1.1", false),
        ("64:ff9b::169.254.169.254", false),
        ("64:ff9b::198.18.0.1", false),
        ("64:ff9b::1:808:808", false),
        ("64:ff9b:0:1::808:808", false),
        ("64:ff9b:1::8.8.8.8", false),
        ("64:ff9b:1:ffff::1", false),
        ("2002:808:808::1", true),
        ("2002:7f00:1::1", false),
        ("2002:a00:1::1", false),
        ("2002:c0a8:101::", false),
        ("2002:ac10:1::1", false),
        ("2002:a9fe:a9fe::1", false),
        ("2002:c058:6301::1", false),
        ("2002:e000:1::1", false),
        ("2002::", false),
        ("2001::1", false),
        ("2001:0:7f00:1:0:0:f5ff:fffe", false),
        ("2001:0:808:808:0:0:f7f7:f7f7", false),
        ("2a00:1450::5efe:10.0.0.1", false),
        ("2a00:1450::200:5efe:192.168.0.1", false),
        ("2a00:1450::5efe:8.8.8.8", true),
        ("2a00:1450::5efd:10.0.0.1", true),
        ("fe80::5efe:8.8.8.8", false),
        // IPv6.
        ("::", false),
        ("::1", false),
        ("::2", false),
        ("64:ff9a::1", false),
        ("100::1", false),
        ("100:0:0:1::1", false),
        ("100:0:0:2::1", false),
        ("200::1", false),
        ("400::1", false),
        ("1fff:ffff::1", false),
        ("2000::1", true),
        ("2001:1::", false),
        ("2001:1::1", true),
        ("2001:1::2", true),
        ("2001:1::3", true),
        ("2001:1::4", false),
        ("2001:2::1", false),
        ("2001:2:1::1", false),
        ("2001:3::1", true),
        ("2001:4::1", false),
        ("2001:4:112::1", true),
        ("2001:10::1", false),
        ("2001:1f:ffff::1", false),
        ("2001:20::1", true),
        ("2001:30::1", true),
        ("2001:40::1", false),
        ("2001:1ff:ffff::1", false),
        ("2001:200::1", true),
        ("2001:4860:4860::8888", true),
        ("2001:db7:ffff::1", true),
        ("2001:db8::1", false),
        ("2001:db8:ffff:ffff::1", false),
        ("2001:db9::1", true),
        ("2003::1", true),
        ("2620:4f:8000::1", true),
        ("2a00:1450::1", true),
        ("3ffe::1", true),
        ("3fff::1", false),
        ("3fff:fff:ffff::1", false),
        ("3fff:1000::1", true),
        ("4000::1", false),
        ("5f00::1", false),
        ("8000::1", false),
        ("fbff::1", false),
        ("fc00::1", false),
        ("fd12:3456::1", false),
        ("fe00::1", false),
        ("fe80::1", false),
        ("febf:ffff::1", false),
        ("fec0::1", false),
        ("feff:ffff::1", false),
        ("ff02::1", false),
        ("ff0e::1", false),
    ];

    #[test]
    fn an_address_is_public_as_the_special_purpose_registries_say() {
        for (address, expected) in TABLE {
            assert_eq!(is_public(address.parse().unwrap()), *expected, "{address}");
        }
    }

    #[test]
    fn no_embedding_of_an_ipv4_address_is_more_public_than_the_address() {
        for (address, expected) in TABLE {
            let Ok(address) = address.parse::<Ipv4Addr>() else { continue };
            let v4 = u128::from(address.to_bits());
            let embedded = [v4, v4 | 0xffff << 32, v4 | 0xffff << 48, v4 | v6(0x64, 0xff9b, 0, 0)];
            let tunnelled = [v6(0x2002, 0, 0, 0) | v4 << 80 | 1, v6(0x2a00, 0, 0, 0) | 0x5efe << 32 | v4];
            for bits in embedded.into_iter().chain(tunnelled) {
                let address = IpAddr::V6(Ipv6Addr::from_bits(bits));
                assert!(!is_public(address) || *expected, "{address}");
            }
        }
    }
}
