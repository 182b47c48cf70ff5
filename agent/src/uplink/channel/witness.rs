//! What became of the TLS handshake.
//!
//! In TLS 1.3 a client is done with the handshake before the server has looked at its certificate: a refusal comes as
//! an alert on the first read, or, where the alert gets lost, as an end before anything was read. HTTP/2 tells its
//! callers neither. So the stream below it remembers.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Remembers how a connection began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    answered: AtomicBool,
    alert: OnceLock<String>,
}

impl Witness {
    /// How the server refused the handshake; none when it did not. Asked when the connection has ended.
    pub(crate) fn refusal(&self) -> Option<String> {
        let seen = &self.0;
        let silent = || (!seen.answered.load(Ordering::Acquire)).then(|| "it gave no reason".to_owned());
        seen.alert.get().cloned().or_else(silent)
    }

    fn note(&self, result: &Poll<io::Result<()>>, bytes: usize) {
        match result {
            Poll::Ready(Ok(())) if bytes > 0 => self.0.answered.store(true, Ordering::Release),
            Poll::Ready(Err(error)) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
                if let Some(alert @ rustls::Error::AlertReceived(_)) = cause {
                    self.0.alert.get_or_init(|| alert.to_string());
                }
            }
            _ => {}
        }
    }
}

/// A stream whose [`Witness`] sees what is read.
#[derive(Debug)]
pub(crate) struct Witnessed<S> {
    stream: S,
    witness: Witness,
}

impl<S> Witnessed<S> {
    pub(crate) fn new(stream: S, witness: Witness) -> Self {
        Self { stream, witness }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Witnessed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.witness.note(&result, buffer.filled().len() - before);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Witnessed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
