//! How metadata lies in the store: under `m` and its key, with a CRC32C of key and value after the value (4 bytes,
//! little-endian): not every store notices that its files were altered.

use crate::buffer::record::CHUNK_BYTES_MAX;
use crate::buffer::store::{Changes, KeyValue, Store};
use crate::buffer::{BufferError, MetadataWrite};

/// Longest metadata key.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// Longest metadata value.
pub const METADATA_VALUE_BYTES_MAX: usize = CHUNK_BYTES_MAX - CRC_BYTES;

const PREFIX: u8 = b'm';
const CRC_BYTES: usize = 4;

pub(super) fn get(store: &Store, key: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
    let key = stored_key(key);
    store.get(&key)?.map(|value| unseal(&key, value)).transpose()
}

/// All pairs whose key starts with `prefix`, in order.
pub(super) fn with_prefix(store: &Store, prefix: &[u8]) -> Result<Vec<KeyValue>, BufferError> {
    let pairs = store.scan(&stored_key(prefix))?;
    pairs.into_iter().map(|(key, value)| Ok((key[1..].to_vec(), unseal(&key, value)?))).collect()
}

/// Every pair as it lies in the store.
pub(super) fn as_stored(store: &Store) -> Result<Vec<KeyValue>, BufferError> {
    store.scan(&[PREFIX])
}

pub(super) fn put(changes: &mut Changes, key: &[u8], value: &[u8]) {
    let key = stored_key(key);
    let crc = crc(&key, value).to_le_bytes();
    changes.insert(key, [value, &crc].concat());
}

pub(super) fn put_all(changes: &mut Changes, writes: &[MetadataWrite]) -> Result<(), BufferError> {
    for write in writes {
        let value_bytes = write.value.as_ref().map_or(0, Vec::len);
        if write.key.len() > METADATA_KEY_BYTES_MAX || value_bytes > METADATA_VALUE_BYTES_MAX {
            return Err(BufferError::TooLarge {
                what: "metadata",
                bytes: write.key.len().max(value_bytes),
                max: METADATA_VALUE_BYTES_MAX,
            });
        }
        match &write.value {
            Some(value) => put(changes, &write.key, value),
            None => changes.remove(stored_key(&write.key)),
        }
    }
    Ok(())
}

fn stored_key(key: &[u8]) -> Vec<u8> {
    [&[PREFIX], key].concat()
}

fn crc(stored_key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(stored_key), value)
}

/// The value without its checksum, which must hold.
fn unseal(stored_key: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, BufferError> {
    let intact = sealed
        .split_last_chunk::<CRC_BYTES>()
        .is_some_and(|(value, found)| u32::from_le_bytes(*found) == crc(stored_key, value));
    if !intact {
        return Err(BufferError::Damaged { detail: "the checksum of its accounts does not hold".to_owned() });
    }
    sealed.truncate(sealed.len() - CRC_BYTES);
    Ok(sealed)
}
