//! Community ID, version 1: the name that network tools (Zeek, Suricata, Wireshark …) give the same flow.
//!
//! <https://github.com/corelight/community-id-spec>: SHA-1 over seed, the two ends in a fixed order, and the protocol,
//! in base64. Computed where it is shown or stored, never sent: the ends say it all.

use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use crate::event::Protocol;

/// The seed that tools use unless told otherwise.
const SEED: u16 = 0;

/// The id of the flow between two ends, whichever end is whose: `1:` and 28 characters.
///
/// An IPv4 address in IPv6 notation, which a socket may show, counts as the IPv4 address that is in the packets. `None`
/// when the ends are of different families, which no flow has.
pub fn community_id(protocol: Protocol, one: SocketAddr, other: SocketAddr) -> Option<String> {
    let ends = [one, other].map(|end| (end.ip().to_canonical(), end.port()));
    let [first, second] = if ends[0] <= ends[1] { ends } else { [ends[1], ends[0]] };
    let mut hash = Sha1::new();
    hash.update(SEED.to_be_bytes());
    match (first.0, second.0) {
        (IpAddr::V4(first), IpAddr::V4(second)) => {
            hash.update(first.octets());
            hash.update(second.octets());
        }
        (IpAddr::V6(first), IpAddr::V6(second)) => {
            hash.update(first.octets());
            hash.update(second.octets());
        }
        _ => return None,
    }
    hash.update([internet_protocol(protocol), 0]);
    hash.update(first.1.to_be_bytes());
    hash.update(second.1.to_be_bytes());
    Some(format!("1:{}", BASE64.encode(&hash.finalize())))
}

/// The number in the IP header.
fn internet_protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(protocol: Protocol, one: &str, other: &str) -> Option<String> {
        community_id(protocol, one.parse().unwrap(), other.parse().unwrap())
    }

    /// The first two are the specification's own examples.
    #[test]
    fn ids_are_those_of_the_specification() {
        use Protocol::{Tcp, Udp};
        for (protocol, one, other, expected) in [
            (Tcp, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (Udp, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            (Tcp, "[fe80:1:203:405:607:809:a0b:c0d]:11234", "[fe80::1]:80", "1:CQfNbDgYTCVipRKcOwz/ZXctyAo="),
        ] {
            assert_eq!(id(protocol, one, other).as_deref(), Some(expected));
            assert_eq!(id(protocol, other, one).as_deref(), Some(expected), "either end first");
        }
    }

    #[test]
    fn addresses_count_as_they_are_in_packets() {
        let plain = id(Protocol::Tcp, "128.232.110.120:34855", "66.35.250.204:80");
        assert_eq!(id(Protocol::Tcp, "[::ffff:128.232.110.120]:34855", "66.35.250.204:80"), plain);
        assert_eq!(id(Protocol::Tcp, "[::1]:34855", "66.35.250.204:80"), None);
        assert_ne!(id(Protocol::Udp, "128.232.110.120:34855", "66.35.250.204:80"), plain);
    }
}
