//! Batches out of the spool, acknowledgements in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use picket_common::batch::limits::BATCH_FRAME_BYTES_MAX;
use picket_common::chain::STATEMENT_BYTES_MAX;
use picket_proto::v1;
use picket_proto::v1::ingest_service_client::IngestServiceClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::identity::Identity;
use crate::pipeline::spool::{PendingBatch, Settlement, Spool};
use crate::uplink::{UplinkError, UplinkState, blocking, statement, within};

/// Most batches sent and not answered. The server allows 64.
pub(crate) const WINDOW_BATCHES: usize = 32;
/// Most bytes of them.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Most batches read from the disk at a time.
const LEASE_BATCHES: usize = 8;
/// Most answers that are settled in one go.
const ANSWERS_MAX: usize = 64;
/// Largest message out: a frame, a word on the chain, and a few bytes.
const REQUEST_BYTES_MAX: usize = BATCH_FRAME_BYTES_MAX + STATEMENT_BYTES_MAX + 1024;
/// Largest message in: an acknowledgement with a reason.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// How long the server may take to answer the call itself.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest part of a server's reason that is logged.
const REASON_CHARS_MAX: usize = 200;

const CALL: &str = "deliver";

/// What a delivery works with.
pub(crate) struct Delivery<'a> {
    pub(crate) spool: &'a Arc<Spool>,
    pub(crate) state: &'a UplinkState,
    /// Signs what is said of the chain.
    pub(crate) identity: &'a Identity,
    /// How long the server may take to answer anything of what is in flight.
    pub(crate) acknowledgement_timeout: Duration,
    /// End when everything is delivered.
    pub(crate) finish: &'a CancellationToken,
}

/// What is in flight.
#[derive(Default)]
struct Window {
    batches: BTreeMap<u64, InFlight>,
    bytes: usize,
    next_id: u64,
}

struct InFlight {
    batch: PendingBatch,
    bytes: usize,
}

impl Delivery<'_> {
    /// Delivers until the connection fails; `Ok` when it was to finish and everything is delivered.
    pub(crate) async fn run(&self, channel: Channel) -> Result<(), UplinkError> {
        // As many places as the window: sending never waits.
        let (requests, outgoing) = mpsc::channel(WINDOW_BATCHES);
        let mut client = IngestServiceClient::new(channel)
            .max_decoding_message_size(RESPONSE_BYTES_MAX)
            .max_encoding_message_size(REQUEST_BYTES_MAX);
        let mut answers = within(OPEN_TIMEOUT, "answer to deliver", client.deliver(ReceiverStream::new(outgoing)))
            .await?
            .map_err(|status| UplinkError::status(CALL, &status))?
            .into_inner();
        self.state.connected();
        let mut window = Window::default();
        let mut is_empty = self.fill(&mut window, &requests).await?;
        let mut deadline = Instant::now() + self.acknowledgement_timeout;
        loop {
            if is_empty && window.batches.is_empty() && self.finish.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                biased;
                answer = answers.message() => {
                    let first = answer.map_err(|status| UplinkError::status(CALL, &status))?;
                    let first = first.ok_or(UplinkError::Ended { call: CALL })?;
                    self.settle(&mut window, first, &mut answers).await?;
                    deadline = Instant::now() + self.acknowledgement_timeout;
                }
                () = self.spool.appended(), if window.has_room() => {
                    if window.batches.is_empty() {
                        deadline = Instant::now() + self.acknowledgement_timeout;
                    }
                }
                () = self.finish.cancelled(), if window.batches.is_empty() => {}
                () = tokio::time::sleep_until(deadline), if !window.batches.is_empty() => {
                    return Err(UplinkError::Timeout {
                        what: "acknowledgement",
                        seconds: self.acknowledgement_timeout.as_secs(),
                    });
                }
            }
            is_empty = self.fill(&mut window, &requests).await?;
        }
    }

    /// Sends what fits into the window. `true`: nothing is left to send.
    async fn fill(
        &self,
        window: &mut Window,
        requests: &mpsc::Sender<v1::DeliverRequest>,
    ) -> Result<bool, UplinkError> {
        while window.has_room() {
            let spool = Arc::clone(self.spool);
            let batches_max = LEASE_BATCHES.min(WINDOW_BATCHES - window.batches.len());
            let bytes_max = WINDOW_BYTES - window.bytes;
            let lease = blocking(move || spool.lease(batches_max, bytes_max)).await??;
            if lease.batches.is_empty() {
                return Ok(true);
            }
            let spool = Arc::clone(self.spool);
            let summary = blocking(move || spool.chain()).await??;
            let mut chain_statement = Some(statement::sign(self.identity, &summary)?);
            for leased in lease.batches {
                let chain_place = leased.chain.as_ref().map(statement::place);
                let (batch, frame) = leased.into_parts();
                let bytes = frame.len();
                let delivery_id = window.add(batch, bytes);
                let chain_statement = chain_statement.take();
                let request = v1::DeliverRequest { batch: frame.into(), delivery_id, chain_place, chain_statement };
                requests.send(request).await.map_err(|_| UplinkError::Ended { call: CALL })?;
                self.state.counters().sent.fetch_add(1, Ordering::Relaxed);
                self.state.counters().sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            self.note_in_flight(window);
        }
        Ok(false)
    }

    /// Settles an answer, and those that have come meanwhile.
    async fn settle(
        &self,
        window: &mut Window,
        first: v1::DeliverResponse,
        answers: &mut Streaming<v1::DeliverResponse>,
    ) -> Result<(), UplinkError> {
        let mut settled = vec![self.take(window, &first)?];
        // An error or the end of the stream comes again with the next call.
        while settled.len() < ANSWERS_MAX
            && let Some(Ok(Some(answer))) = answers.message().now_or_never()
        {
            settled.push(self.take(window, &answer)?);
        }
        self.note_in_flight(window);
        let spool = Arc::clone(self.spool);
        Ok(blocking(move || spool.settle(&settled)).await??)
    }

    fn take(
        &self,
        window: &mut Window,
        answer: &v1::DeliverResponse,
    ) -> Result<(PendingBatch, Settlement), UplinkError> {
        let id = answer.delivery_id;
        let protocol = |what: String| UplinkError::Protocol { call: CALL, what };
        let batch =
            window.remove(id).ok_or_else(|| protocol(format!("an answer to delivery {id}, which is not open")))?;
        let counters = self.state.counters();
        let (counter, settlement) = match answer.verdict() {
            v1::BatchVerdict::Accepted => (&counters.accepted, Settlement::Delivered),
            v1::BatchVerdict::Duplicate => (&counters.duplicate, Settlement::Delivered),
            v1::BatchVerdict::Rejected => {
                let reason: String = answer.reason.chars().take(REASON_CHARS_MAX).collect();
                let kind = answer.reject_reason().as_str_name();
                tracing::warn!(
                    kind,
                    reason = reason.escape_debug().to_string(),
                    "the server rejected a batch for good"
                );
                (&counters.rejected, Settlement::Rejected)
            }
            v1::BatchVerdict::Unspecified => return Err(protocol(format!("no verdict about delivery {id}"))),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok((batch, settlement))
    }

    fn note_in_flight(&self, window: &Window) {
        self.state.counters().in_flight.store(window.batches.len() as u64, Ordering::Relaxed);
    }
}

impl Window {
    fn has_room(&self) -> bool {
        self.batches.len() < WINDOW_BATCHES && self.bytes < WINDOW_BYTES
    }

    fn add(&mut self, batch: PendingBatch, bytes: usize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.bytes += bytes;
        self.batches.insert(id, InFlight { batch, bytes });
        id
    }

    fn remove(&mut self, id: u64) -> Option<PendingBatch> {
        let in_flight = self.batches.remove(&id)?;
        self.bytes -= in_flight.bytes;
        Some(in_flight.batch)
    }
}
