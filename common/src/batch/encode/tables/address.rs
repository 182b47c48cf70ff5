//! Addresses, which are strings of a certain length.

use std::net::{IpAddr, SocketAddr};

use super::{Reference, Tables};
use crate::batch::columns::{Column, ColumnWriter};
use crate::batch::interner::Interned;

impl Tables {
    /// Puts a reference to an address.
    pub(in crate::batch::encode) fn put_ip_address(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        address: IpAddr,
    ) {
        match address {
            IpAddr::V4(address) => self.put_string(columns, column, &address.octets()),
            IpAddr::V6(address) => self.put_string(columns, column, &address.octets()),
        }
    }

    /// Puts a reference to the address of an end, without its port.
    pub(in crate::batch::encode) fn put_socket_address(
        &mut self,
        columns: &mut ColumnWriter,
        column: Column,
        address: SocketAddr,
    ) {
        let address = self.intern_socket_address(columns, address);
        columns.put(column, Reference::or_empty(address).0);
    }

    pub(super) fn intern_socket_address(&mut self, columns: &mut ColumnWriter, address: SocketAddr) -> Interned {
        match address {
            SocketAddr::V4(address) => self.intern_string(columns, &address.ip().octets()),
            SocketAddr::V6(address) if address.flowinfo() == 0 && address.scope_id() == 0 => {
                self.intern_string(columns, &address.ip().octets())
            }
            SocketAddr::V6(address) => {
                let mut bytes = [0; 24];
                bytes[..16].copy_from_slice(&address.ip().octets());
                bytes[16..20].copy_from_slice(&address.flowinfo().to_be_bytes());
                bytes[20..].copy_from_slice(&address.scope_id().to_be_bytes());
                self.intern_string(columns, &bytes)
            }
        }
    }
}
