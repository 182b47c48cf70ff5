//! Addresses, which are strings of a certain length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Tables;
use crate::batch::columns::{Column, ColumnReader};
use crate::batch::error::BatchError;

impl<'a> Tables<'a> {
    /// Takes a reference to an address.
    pub(in crate::batch::decode) fn take_ip_address(
        &mut self,
        columns: &mut ColumnReader<'a>,
        column: Column,
    ) -> Result<IpAddr, BatchError> {
        let bytes = self.take_string(columns, column)?;
        if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
            return Ok(IpAddr::V4(Ipv4Addr::from(octets)));
        }
        match <[u8; 16]>::try_from(bytes) {
            Ok(octets) => Ok(IpAddr::V6(Ipv6Addr::from(octets))),
            Err(_) => Err(column.error("refers to an address that is not 4 or 16 bytes long")),
        }
    }

    /// Takes a reference to an address, and a port.
    pub(in crate::batch::decode) fn take_socket_address(
        &mut self,
        columns: &mut ColumnReader<'a>,
        address: Column,
        port: Column,
    ) -> Result<SocketAddr, BatchError> {
        let bytes = self.take_string(columns, address)?;
        let port = columns.take_as(port)?;
        let v6 = |octets: [u8; 16], flow_information, scope_id| {
            SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow_information, scope_id))
        };
        if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
            return Ok(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(octets), port)));
        }
        if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
            return Ok(v6(octets, 0, 0));
        }
        let [head @ .., a, b, c, d] = bytes else {
            return Err(address.error("refers to an address that is too short"));
        };
        match head.split_first_chunk::<16>() {
            Some((octets, &[e, f, g, h])) => {
                Ok(v6(*octets, u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([*a, *b, *c, *d])))
            }
            _ => Err(address.error("refers to an address that is not 4, 16 or 24 bytes long")),
        }
    }
}
