//! Netlink sockets and messages (Linux).
//!
//! A message is `struct nlmsghdr` (16 bytes, native byte order: length, type, flags, sequence number, port) and a payload;
//! several may share a datagram, each aligned to four bytes.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, sockopt};

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_BYTES: usize = 16;
/// `NLMSG_ERROR`: an error code, 0 for a plain acknowledgement.
pub(crate) const TYPE_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const TYPE_DONE: u16 = 3;
/// Largest datagram taken, bytes; the kernel makes dumps of up to 32 KiB.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

const ALIGNMENT: usize = 4;

/// A netlink socket.
pub(crate) struct NetlinkSocket {
    socket: Socket,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A datagram of the kernel with so many bytes.
    Datagram(usize),
    /// Nothing to be used: nothing came in time, the call was interrupted, or somebody else wrote to this socket.
    Nothing,
    /// The kernel had to drop messages because the receive buffer was full.
    Overrun,
}

impl NetlinkSocket {
    /// Opens a socket and joins `groups` (a bit mask).
    pub(crate) fn open(protocol: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Asks for a receive buffer of `bytes`: beyond the system's limit when that is permitted, else up to it.
    pub(crate) fn enlarge_receive_buffer(&self, bytes: usize) {
        if sockopt::set_socket_recv_buffer_size_force(&self.socket, bytes).is_err()
            && let Err(error) = sockopt::set_socket_recv_buffer_size(&self.socket, bytes)
        {
            tracing::debug!(%error, "receive buffer of a netlink socket stays as it is");
        }
    }

    /// Lets the kernel go on filling the buffer after it had to drop messages, instead of dropping all until the buffer
    /// is empty. Drops are then no longer reported as [`Received::Overrun`]: only for protocols that let them be
    /// counted otherwise.
    pub(crate) fn continue_after_overrun(&self) -> io::Result<()> {
        self.socket.set_no_enobufs(true)
    }

    /// Limits how long [`Self::receive`] waits.
    pub(crate) fn set_receive_timeout(&self, timeout: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(timeout))?;
        Ok(())
    }

    /// Sends to the kernel.
    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, message, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Waits for a datagram.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive_with(buffer, RecvFlags::TRUNC)
    }

    /// Takes a datagram that is there already.
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive_with(buffer, RecvFlags::TRUNC | RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Received> {
        let available = buffer.len();
        match rustix::net::recvfrom(&self.socket, buffer, flags) {
            Ok((_, length, sender)) => {
                let from_kernel = sender
                    .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                    .is_some_and(|sender| sender.pid() == 0);
                // A datagram longer than any the kernel makes is not one of its own.
                Ok(if from_kernel && length <= available { Received::Datagram(length) } else { Received::Nothing })
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Received::Nothing),
            Err(rustix::io::Errno::NOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(error.into()),
        }
    }

    /// How many messages the kernel could not put into the receive buffer so far, as `/proc/net/netlink` shows it.
    pub(crate) fn drops(&self) -> Option<u64> {
        let inode = rustix::fs::fstat(&self.socket).ok()?.st_ino;
        drops_of(&std::fs::read_to_string("/proc/net/netlink").ok()?, inode)
    }
}

impl std::os::fd::AsFd for NetlinkSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for NetlinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetlinkSocket")
    }
}

/// Column `Drops` of the line with the given `Inode`.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut from_the_end = line.split_ascii_whitespace().rev();
        (from_the_end.next()?.parse() == Ok(inode)).then(|| from_the_end.next()?.parse().ok())?
    })
}

/// A message for the kernel.
pub(crate) fn message(message_type: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + payload.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&message_type.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(payload);
    message
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Its type.
    pub(crate) message_type: u16,
    /// The sequence number of the request it answers.
    pub(crate) sequence: u32,
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram; ends before one whose length is impossible.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let body = rest.get(..length)?;
        let message =
            Message { message_type: u16_at(body, 4)?, sequence: u32_at(body, 8)?, payload: body.get(HEADER_BYTES..)? };
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes of a message (`struct nlattr`: length with header, type, payload; aligned to four bytes); ends before
/// one whose length is impossible.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const HEADER: usize = 4;
    /// The upper two bits of a type are flags.
    const TYPE_MASK: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE_MASK;
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// The `u16` at an offset, native byte order.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The `u32` at an offset, native byte order.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The `u64` at an offset, native byte order.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_of_one_datagram_are_told_apart() {
        let mut datagram = message(3, 0, 7, b"abcde");
        datagram.resize(datagram.len().next_multiple_of(4), 0);
        datagram.extend(message(4, 0, 8, b""));
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Message { message_type: 3, sequence: 7, payload: b"abcde" });
        assert_eq!(found[1], Message { message_type: 4, sequence: 8, payload: b"" });
    }

    #[test]
    fn impossible_lengths_end_the_datagram() {
        for length in [0, 1, 15, 18, u32::MAX] {
            let mut datagram = message(3, 0, 7, b"x");
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&datagram).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 0]).count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(message.payload.len() + HEADER_BYTES <= bytes.len());
            }
            for (_, payload) in attributes(&bytes) {
                prop_assert!(payload.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn drops_are_found_by_inode() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     0000000000000000 0   123        00000000 0        0        0     2        0        41\n\
                     0000000000000000 4   0          00000005 0        0        0     2        17       42\n";
        assert_eq!(drops_of(table, 42), Some(17));
        assert_eq!(drops_of(table, 41), Some(0));
        assert_eq!(drops_of(table, 4), None);
    }

    #[test]
    fn the_kernel_counts_the_drops_of_a_socket() {
        let socket = NetlinkSocket::open(netlink_sys::protocols::NETLINK_USERSOCK, 0).unwrap();
        assert_eq!(socket.drops(), Some(0));
    }
}
