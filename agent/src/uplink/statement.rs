//! The agent's word on its hash chain, signed with the host's key.

use picket_common::chain::{self, ChainPlace};
use picket_proto::v1;
use prost::Message as _;

use crate::identity::{Identity, IdentityError};
use crate::pipeline::account::EpochAccount;
use crate::pipeline::spool::ChainSummary;

/// Where a batch stands.
pub(crate) fn place(place: &ChainPlace) -> v1::ChainPlace {
    v1::ChainPlace { previous_link: place.previous.as_bytes().to_vec(), batches_lost: place.batches_lost }
}

/// Signs what there is to say.
pub(crate) fn sign(identity: &Identity, summary: &ChainSummary) -> Result<v1::SignedChainStatement, IdentityError> {
    let (epoch, sequence) = summary.oldest;
    let statement = v1::ChainStatement {
        heads: summary.accounts.iter().map(head).collect(),
        oldest_epoch: epoch.0,
        oldest_sequence: sequence.0,
    }
    .encode_to_vec();
    let signature = identity.sign(&chain::signed_bytes(identity.host_id, &statement))?;
    Ok(v1::SignedChainStatement { statement, signature })
}

fn head(account: &EpochAccount) -> v1::ChainHead {
    let lost = account.batches_lost.spans().iter();
    v1::ChainHead {
        epoch: account.epoch.0,
        batches: account.batches,
        link: account.link.as_bytes().to_vec(),
        previous_epoch: account.previous_epoch.0,
        lost: lost.map(|span| v1::LostBatches { first: span.first, last: span.last, batches: span.batches }).collect(),
    }
}
