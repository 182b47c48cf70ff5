//! What agents say of their hash chains.

use picket_common::chain::{
    ChainHead, ChainPlace, HEADS_MAX, LOST_SPANS_MAX, LostSpan, STATEMENT_BYTES_MAX, signed_bytes,
};
use picket_common::id::{BatchSequence, Digest, Epoch};
use picket_proto::v1;
use prost::Message as _;

use crate::chain::{StatedEpoch, Statement};
use crate::pki::PeerIdentity;

/// Why a statement is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StatementError {
    /// Over a limit.
    #[error(
        "it is larger than {STATEMENT_BYTES_MAX} bytes, or names more than {HEADS_MAX} epochs or {LOST_SPANS_MAX} spans"
    )]
    TooLarge,
    /// Not signed with the key of the host's certificate.
    #[error("it is not signed with the key of the host's certificate")]
    Signature,
    /// Not what an agent writes.
    #[error("it is malformed")]
    Malformed,
}

/// Where a batch stands; `None` when what was said is no place: the batch then counts as not verified.
pub(super) fn place(sequence: BatchSequence, wire: Option<v1::ChainPlace>) -> Option<ChainPlace> {
    let wire = wire?;
    Some(ChainPlace { sequence, previous: link(&wire.previous_link)?, batches_lost: wire.batches_lost })
}

/// Checks a statement and reads it.
pub(super) fn statement(peer: &PeerIdentity, signed: &v1::SignedChainStatement) -> Result<Statement, StatementError> {
    if signed.statement.len() > STATEMENT_BYTES_MAX {
        return Err(StatementError::TooLarge);
    }
    if !peer.has_signed(&signed_bytes(peer.host, &signed.statement), &signed.signature) {
        return Err(StatementError::Signature);
    }
    let statement = v1::ChainStatement::decode(&*signed.statement).map_err(|_| StatementError::Malformed)?;
    if statement.heads.len() > HEADS_MAX || statement.heads.iter().any(|head| head.lost.len() > LOST_SPANS_MAX) {
        return Err(StatementError::TooLarge);
    }
    let heads = statement.heads.iter().map(epoch).collect::<Option<_>>().ok_or(StatementError::Malformed)?;
    Ok(Statement { heads, oldest: (statement.oldest_epoch, statement.oldest_sequence) })
}

fn epoch(head: &v1::ChainHead) -> Option<StatedEpoch> {
    let lost = head.lost.iter().map(|span| {
        let span = LostSpan { first: span.first, last: span.last, batches: span.batches };
        (span.first <= span.last).then_some(span)
    });
    Some(StatedEpoch {
        head: ChainHead { epoch: Epoch(head.epoch), batches: head.batches, link: link(&head.link)? },
        previous_epoch: head.previous_epoch,
        lost: lost.collect::<Option<_>>()?,
    })
}

fn link(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest::from_bytes)
}
