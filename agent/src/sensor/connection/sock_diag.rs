//! The kernel's socket diagnosis (`linux/sock_diag.h`, `linux/inet_diag.h`): TCP sockets as they are now, and as they
//! were when they were destroyed.
//!
//! A socket is `struct inet_diag_msg` (72 bytes: family, state, timer, retransmissions; ports and addresses in network
//! byte order, interface, cookie; expiry, queues, user, inode) and attributes, among them `struct tcp_info`, which grows
//! with each kernel: what a kernel does not know is missing.
//!
//! What a kernel 6.18 says of a destroyed socket, found by trying: addresses, ports, cookie and `tcp_info` are there;
//! state is always "closed", user and inode are 0. A socket whose `connect` was refused while the caller waited (or that
//! was closed with a linger time of zero) has been reset by then: remote port 0, counters 0, local address unspecified;
//! only the smallest round-trip time still tells whether it was ever established. The end that closes first is told
//! of when it enters TIME_WAIT, with all its counters. The notifications need no privilege.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::sensor::netlink::{
    DATAGRAM_BYTES_MAX, NetlinkSocket, Received, TYPE_DONE, TYPE_ERROR, attributes, message, messages, u32_at, u64_at,
};

/// Groups `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;
/// `SOCK_DIAG_BY_FAMILY`.
const TYPE_SOCKET: u16 = 20;
/// `NLM_F_REQUEST`.
const FLAG_REQUEST: u16 = 0x1;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const FLAG_DUMP: u16 = 0x300;
/// `INET_DIAG_INFO`.
const ATTRIBUTE_INFO: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const NO_COOKIE: u64 = u64::MAX;
/// How long the kernel may take for an answer; it makes it within the call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Receive buffer for notifications: at some 1.3 KB of kernel memory each, room for three seconds of 2,000 a second.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// A state of a TCP socket (`net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpState(pub(super) u8);

impl TcpState {
    pub(super) const ESTABLISHED: Self = Self(1);
    pub(super) const SYN_SENT: Self = Self(2);
    pub(super) const CLOSE_WAIT: Self = Self(8);
    pub(super) const SYN_RECV: Self = Self(3);
    const TIME_WAIT: Self = Self(6);
    pub(super) const CLOSE: Self = Self(7);
    pub(super) const LISTEN: Self = Self(10);
    const NEW_SYN_RECV: Self = Self(12);

    /// Everything that is a whole socket, for a dump.
    fn mask_of_sockets() -> u32 {
        let without = [Self::TIME_WAIT, Self::CLOSE, Self::SYN_RECV, Self::NEW_SYN_RECV];
        without.iter().fold((1 << 13) - 2, |mask, state| mask & !state.mask())
    }

    fn mask(self) -> u32 {
        1_u32.checked_shl(u32::from(self.0)).unwrap_or(0)
    }

    /// Whether the two ends have met.
    pub(super) fn is_synchronized(self) -> bool {
        !matches!(self, Self::SYN_SENT | Self::SYN_RECV | Self::NEW_SYN_RECV | Self::LISTEN | Self::CLOSE)
    }
}

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiagSocket {
    pub(super) state: TcpState,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) cookie: u64,
    /// Network namespace it is in; 0: the agent's own, the only one that can be asked about.
    pub(super) network: u32,
    pub(super) user_id: u32,
    /// 0: the socket belongs to no file (not accepted yet, or closed).
    pub(super) inode: u32,
    /// The cgroup (version 2) that made it, where that is told.
    pub(super) cgroup_id: Option<NonZeroU64>,
    pub(super) info: Option<TcpInfo>,
}

/// What `struct tcp_info` says, as far as the kernel knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// Milliseconds since data was last sent, or since the connection was established.
    pub(super) last_data_sent_ms: Option<u32>,
    /// Milliseconds since data was last received, or since the connection was established.
    pub(super) last_data_received_ms: Option<u32>,
    /// Bytes acknowledged, SYN and FIN included.
    pub(super) bytes_acknowledged: Option<u64>,
    /// Bytes received, FIN included.
    pub(super) bytes_received: Option<u64>,
    pub(super) segments_sent: Option<u32>,
    pub(super) segments_received: Option<u32>,
    /// Smallest round-trip time, microseconds; `u32::MAX` when none was ever measured.
    pub(super) round_trip_min_us: Option<u32>,
    pub(super) data_segments_received: Option<u32>,
    pub(super) data_segments_sent: Option<u32>,
    /// Payload bytes sent, retransmissions included.
    pub(super) bytes_sent: Option<u64>,
    pub(super) bytes_retransmitted: Option<u64>,
    /// Whether the other end has closed; `struct tcp_info` does not say.
    pub(super) fin_received: Option<bool>,
}

impl TcpInfo {
    /// Reads a `struct tcp_info`, however long it is.
    fn parse(bytes: &[u8]) -> Self {
        Self {
            last_data_sent_ms: u32_at(bytes, 44),
            last_data_received_ms: u32_at(bytes, 52),
            bytes_acknowledged: u64_at(bytes, 120),
            bytes_received: u64_at(bytes, 128),
            segments_sent: u32_at(bytes, 136),
            segments_received: u32_at(bytes, 140),
            round_trip_min_us: u32_at(bytes, 148),
            data_segments_received: u32_at(bytes, 152),
            data_segments_sent: u32_at(bytes, 156),
            bytes_sent: u64_at(bytes, 200),
            bytes_retransmitted: u64_at(bytes, 208),
            fin_received: None,
        }
    }
}

/// Reads the payload of a message about a socket. `None` for what is not a whole one.
pub(super) fn parse(payload: &[u8]) -> Option<DiagSocket> {
    const FIXED_BYTES: usize = 72;
    let family = *payload.first()?;
    let address = |offset: usize| -> Option<IpAddr> {
        match family {
            AF_INET => Some(Ipv4Addr::from(*payload.get(offset..)?.first_chunk::<4>()?).into()),
            // What an IPv6 socket says of an IPv4 connection.
            AF_INET6 => Some(Ipv6Addr::from(*payload.get(offset..)?.first_chunk::<16>()?).to_canonical()),
            _ => None,
        }
    };
    let port = |offset: usize| Some(u16::from_be_bytes(*payload.get(offset..)?.first_chunk()?));
    let socket = DiagSocket {
        state: TcpState(*payload.get(1)?),
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        cookie: u64_at(payload, 44)?,
        network: 0,
        user_id: u32_at(payload, 64)?,
        inode: u32_at(payload, 68)?,
        cgroup_id: None,
        info: None,
    };
    let info = attributes(payload.get(FIXED_BYTES..)?).find(|(kind, _)| *kind == ATTRIBUTE_INFO);
    Some(DiagSocket { info: info.map(|(_, bytes)| TcpInfo::parse(bytes)), ..socket })
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, with_info: bool, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let extensions = if with_info { 1 << (ATTRIBUTE_INFO - 1) } else { 0 };
    let mut request = vec![family, IPPROTO_TCP, extensions, 0];
    request.extend_from_slice(&states.to_ne_bytes());
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let (local, remote) = ends.unwrap_or((unspecified, unspecified));
    request.extend_from_slice(&local.port().to_be_bytes());
    request.extend_from_slice(&remote.port().to_be_bytes());
    for end in [local, remote] {
        match end.ip() {
            IpAddr::V4(address) => {
                request.extend_from_slice(&address.octets());
                request.extend_from_slice(&[0; 12]);
            }
            IpAddr::V6(address) => request.extend_from_slice(&address.octets()),
        }
    }
    request.extend_from_slice(&0_u32.to_ne_bytes());
    request.extend_from_slice(&NO_COOKIE.to_ne_bytes());
    request
}

/// Asks the kernel for sockets.
#[derive(Debug)]
pub(super) struct DiagClient {
    socket: NetlinkSocket,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl DiagClient {
    /// Opens the way to the kernel.
    pub(super) fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::open(netlink_sys::protocols::NETLINK_SOCK_DIAG, 0)?;
        socket.set_receive_timeout(ANSWER_TIMEOUT)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice() })
    }

    /// Gives every TCP socket to `take`: listening, connecting, connected or closing.
    pub(super) fn dump(&mut self, with_info: bool, take: impl FnMut(DiagSocket)) -> io::Result<()> {
        self.dump_in_states(TcpState::mask_of_sockets(), with_info, take)
    }

    /// Gives every listening TCP socket to `take`.
    pub(super) fn dump_listening(&mut self, take: impl FnMut(DiagSocket)) -> io::Result<()> {
        self.dump_in_states(TcpState::LISTEN.mask(), false, take)
    }

    fn dump_in_states(&mut self, states: u32, with_info: bool, mut take: impl FnMut(DiagSocket)) -> io::Result<()> {
        self.ask(&request(AF_INET, states, with_info, None), FLAG_DUMP, &mut take)?;
        match self.ask(&request(AF_INET6, states, with_info, None), FLAG_DUMP, &mut take) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// The socket with these ends, or the one listening at `local` when `remote` is unspecified. `None` when there is
    /// none (any more).
    pub(super) fn find(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<DiagSocket>> {
        let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
        let mut found = None;
        match self.ask(&request(family, u32::MAX, false, Some((local, remote))), 0, &mut |socket| found = Some(socket))
        {
            Ok(()) => Ok(found.filter(|socket| {
                // What is left in TIME_WAIT is no socket any more.
                let is_whole = socket.state.mask() & TcpState::mask_of_sockets() != 0;
                is_whole && socket.local.port() == local.port() && socket.remote == remote
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, request: &[u8], flags: u16, take: &mut impl FnMut(DiagSocket)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&message(TYPE_SOCKET, FLAG_REQUEST | flags, self.sequence, request))?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let length = match self.socket.receive(&mut self.buffer)? {
                Received::Datagram(length) => length,
                Received::Nothing => continue,
                Received::Overrun => return Err(io::Error::other("the kernel's answer did not fit")),
            };
            for answer in messages(&self.buffer[..length]) {
                // What answers an earlier request, of which nobody waits for the answer any more.
                if answer.sequence != self.sequence {
                    continue;
                }
                match answer.message_type {
                    TYPE_DONE => return Ok(()),
                    TYPE_ERROR => return error_of(answer.payload),
                    TYPE_SOCKET => {
                        parse(answer.payload).into_iter().for_each(&mut *take);
                        if flags & FLAG_DUMP == 0 {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn error_of(payload: &[u8]) -> io::Result<()> {
    match u32_at(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A subscription to the end of TCP sockets.
#[derive(Debug)]
pub(super) struct DestroySubscription {
    socket: NetlinkSocket,
    buffer: Box<[u8]>,
    drops: u64,
}

impl DestroySubscription {
    /// Subscribes.
    pub(super) fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::open(netlink_sys::protocols::NETLINK_SOCK_DIAG, DESTROY_GROUPS)?;
        socket.enlarge_receive_buffer(RECEIVE_BUFFER_BYTES);
        socket.continue_after_overrun()?;
        let drops = socket.drops().ok_or_else(|| io::Error::other("/proc/net/netlink does not list the socket"))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice(), drops })
    }

    /// Gives the sockets whose end was told already to `take`, at most `limit`; says whether that were all.
    pub(super) fn take(&mut self, limit: usize, mut take: impl FnMut(DiagSocket)) -> io::Result<bool> {
        for _ in 0..limit {
            match self.socket.receive_now(&mut self.buffer)? {
                Received::Datagram(length) => {
                    let sockets = messages(&self.buffer[..length])
                        .filter(|message| message.message_type == TYPE_SOCKET)
                        .filter_map(|message| parse(message.payload));
                    sockets.for_each(&mut take);
                }
                Received::Nothing => return Ok(true),
                Received::Overrun => {}
            }
        }
        Ok(false)
    }

    /// Makes the kernel drop notifications soon.
    #[cfg(test)]
    pub(super) fn shrink_receive_buffer(&self) {
        self.socket.enlarge_receive_buffer(4096);
    }

    /// How many notifications the kernel has dropped since this was last asked.
    pub(super) fn new_drops(&mut self) -> u64 {
        let Some(drops) = self.socket.drops() else { return 0 };
        let new = drops.saturating_sub(self.drops);
        self.drops = drops;
        new
    }
}

impl std::os::fd::AsFd for DestroySubscription {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
