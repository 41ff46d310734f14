//! Networks: which addresses a text such as `10.0.0.0/8` means.
//!
//! Owns how a network is written and what lies in it. It asks no resolver: a name is no network.
//!
//! Source: RFC 4632 §3.1, RFC 4291 §2.3 (prefixes), §2.5.5.2 (IPv4 addresses inside IPv6).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits. IPv4 that comes in the clothes of IPv6 is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits from the front count.
    prefix_bits: u8,
}

/// Why a text is no network; the sentence ends with what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFault(pub String);

impl Network {
    /// Whether every address of its kind lies in it.
    pub const fn is_everybody(&self) -> bool {
        self.prefix_bits == 0
    }

    /// Whether that address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ & mask(32, self.prefix_bits) as u32 == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ & mask(128, self.prefix_bits) == 0
            }
            _ => false,
        }
    }
}

/// Ones for the first `prefix_bits` of an address of `bits`.
fn mask(bits: u32, prefix_bits: u8) -> u128 {
    let rest = bits.saturating_sub(u32::from(prefix_bits));
    u128::MAX.checked_shl(rest).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkFault;

    fn from_str(text: &str) -> Result<Self, NetworkFault> {
        let form = "write a network, e.g. \"10.0.0.0/8\" or \"fd00::/8\", or one address";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkFault(form.to_owned()))?;
        // Were it kept as it is written, it would have nobody in it.
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits,
            Some(prefix) => {
                let number = prefix.parse().ok().filter(|number| *number <= bits);
                let plain = prefix.bytes().all(|b| b.is_ascii_digit());
                number
                    .filter(|_| plain)
                    .ok_or_else(|| NetworkFault(format!("behind the slash stands 0 to {bits}")))?
            }
        };
        let network = Self {
            address,
            prefix_bits,
        };
        let first = network.first();
        if first != address {
            // Most likely another prefix was meant, and nobody would notice.
            return Err(NetworkFault(format!(
                "{address} has bits behind the prefix: write \"{first}/{prefix_bits}\", or \"{address}\" alone"
            )));
        }
        Ok(network)
    }
}

impl Network {
    fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(own) => {
                std::net::Ipv4Addr::from_bits(own.to_bits() & mask(32, self.prefix_bits) as u32)
                    .into()
            }
            IpAddr::V6(own) => {
                std::net::Ipv6Addr::from_bits(own.to_bits() & mask(128, self.prefix_bits)).into()
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it_and_no_other() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("192.168.4.0/23", "192.168.5.255", true),
            ("192.168.4.0/23", "192.168.6.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
            // On a listener of both families IPv4 comes as IPv6.
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::/0", "::ffff:10.1.1.1", false),
            ("::ffff:10.1.1.1", "10.1.1.1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_to_write() {
        for (text, told) in [
            ("", "write a network"),
            ("localhost", "write a network"),
            ("10.0.0.0:80", "write a network"),
            ("10.0.0/8", "write a network"),
            ("[::1]", "write a network"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("::/129", "0 to 128"),
            ("::/999", "0 to 128"),
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("fd00::1/8", "write \"fd00::/8\""),
        ] {
            let NetworkFault(sentence) = text.parse::<Network>().unwrap_err();
            assert!(sentence.contains(told), "{text}: {sentence}");
        }
    }
}
