#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};

use proptest::prelude::*;

use super::*;

/// As a kernel 6.18 told of a client on loopback that had sent 1000 bytes and received 77.
fn recorded() -> Vec<u8> {
    let mut payload = vec![AF_INET, 7, 0, 0];
    payload.extend_from_slice(&58234_u16.to_be_bytes());
    payload.extend_from_slice(&52151_u16.to_be_bytes());
    for _ in 0..2 {
        payload.extend_from_slice(&[127, 0, 0, 1]);
        payload.extend_from_slice(&[0; 12]);
    }
    payload.extend_from_slice(&0_u32.to_ne_bytes());
    payload.extend_from_slice(&0x1_0000_0002_u64.to_ne_bytes());
    for word in [0_u32, 0, 0, 1000, 4711] {
        payload.extend_from_slice(&word.to_ne_bytes());
    }
    // INET_DIAG_PROTOCOL, padded, then INET_DIAG_INFO.
    payload.extend_from_slice(&[5, 0, 10, 0, 6, 0, 0, 0]);
    let mut info = vec![0; 280];
    info[120..128].copy_from_slice(&1002_u64.to_ne_bytes());
    info[128..136].copy_from_slice(&77_u64.to_ne_bytes());
    info[136..140].copy_from_slice(&5_u32.to_ne_bytes());
    info[200..208].copy_from_slice(&1000_u64.to_ne_bytes());
    payload.extend_from_slice(&284_u16.to_ne_bytes());
    payload.extend_from_slice(&ATTRIBUTE_INFO.to_ne_bytes());
    payload.extend_from_slice(&info);
    payload
}

#[test]
fn a_recorded_socket_is_read() {
    let socket = parse(&recorded()).unwrap();
    assert_eq!(socket.local, "127.0.0.1:58234".parse().unwrap());
    assert_eq!(socket.remote, "127.0.0.1:52151".parse().unwrap());
    assert_eq!((socket.cookie, socket.user_id, socket.inode), (0x1_0000_0002, 1000, 4711));
    let info = socket.info.unwrap();
    assert_eq!((info.bytes_acknowledged, info.bytes_received), (Some(1002), Some(77)));
    assert_eq!((info.segments_sent, info.bytes_sent), (Some(5), Some(1000)));
}

#[test]
fn an_ipv4_connection_of_an_ipv6_socket_is_an_ipv4_connection() {
    let mut payload = recorded();
    payload[0] = AF_INET6;
    for offset in [8, 24] {
        let mapped = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
        payload[offset..offset + 16].copy_from_slice(&mapped);
    }
    assert_eq!(parse(&payload).unwrap().remote, "192.0.2.7:52151".parse().unwrap());
    payload[8..24].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
    assert_eq!(parse(&payload).unwrap().local, "[::1]:58234".parse().unwrap());
}

#[test]
fn an_older_kernel_says_less() {
    let whole = recorded();
    let info_start = whole.len() - 280;
    let mut shorter = whole[..info_start + 104].to_vec();
    shorter[info_start - 4..info_start - 2].copy_from_slice(&108_u16.to_ne_bytes());
    let info = parse(&shorter).unwrap().info.unwrap();
    assert_eq!((info.last_data_sent_ms, info.bytes_acknowledged, info.bytes_sent), (Some(0), None, None));
}

#[test]
fn what_is_cut_or_foreign_is_refused() {
    let whole = recorded();
    for length in 0..72 {
        assert_eq!(parse(&whole[..length]), None, "{length}");
    }
    for length in 72..whole.len() {
        assert_eq!(parse(&whole[..length]).unwrap().info, None, "{length}");
    }
    let mut unix = whole;
    unix[0] = 1;
    assert_eq!(parse(&unix), None);
}

proptest! {
    #[test]
    fn no_bytes_hurt(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), family in 0_u8..12) {
        if let Some(first) = bytes.first_mut() {
            *first = family;
        }
        let _ = parse(&bytes);
    }
}

#[test]
fn a_dump_has_the_live_sockets_and_their_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (_server, _) = listener.accept().unwrap();
    let mut found = Vec::new();
    let mut diag = DiagClient::open().unwrap();
    diag.dump(true, |socket| found.push(socket)).unwrap();
    let listening = found.iter().find(|socket| socket.local == address && socket.state == TcpState::LISTEN).unwrap();
    assert_eq!(listening.remote.port(), 0);
    let own = found.iter().find(|socket| socket.local == client.local_addr().unwrap()).unwrap();
    assert_eq!((own.remote, own.state), (address, TcpState::ESTABLISHED));
    assert_eq!(own.cookie, rustix::net::sockopt::socket_cookie(&client).unwrap());
    assert_eq!(u64::from(own.inode), rustix::fs::fstat(&client).unwrap().st_ino);
    assert_eq!(own.user_id, rustix::process::geteuid().as_raw());
    assert!(own.info.is_some());
}

#[test]
fn an_error_of_the_kernel_is_an_error() {
    let mut diag = DiagClient::open().unwrap();
    let error = diag.ask(&request(77, 0, false, None), FLAG_DUMP, &mut |_| {}).unwrap_err();
    assert!(error.raw_os_error().is_some(), "{error}");
}
