//! The network's ceiling: a token bucket below TLS, so that everything the agent sends counts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::budget::control::BudgetControl;

/// What may go out at once after a pause: what the rate gives in this time, but no less than [`BURST_BYTES_MIN`].
const BURST: Duration = Duration::from_millis(250);
const BURST_BYTES_MIN: u64 = 4 * 1024;
/// Fewest bytes that are worth a write, so that a slow link is not filled with tiny records.
const WRITE_BYTES_MIN: u64 = 1_024;

/// The ceiling, shared by all connections one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    control: Arc<BudgetControl>,
    bucket: Mutex<Bucket>,
}

/// Tokens are bytes.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u64,
    refilled: Instant,
}

impl Pace {
    /// As `budget.uplink_bytes_per_second_max` says, whenever it changes. Without (`default`) there is no ceiling.
    pub(crate) fn new(control: Arc<BudgetControl>) -> Self {
        let bucket = Mutex::new(Bucket { tokens: 0, refilled: Instant::now() });
        Self(Some(Arc::new(Shared { control, bucket })))
    }

    /// How many of `wanted` bytes may go out now, or how long to wait.
    fn grant(&self, wanted: usize) -> Result<usize, Duration> {
        let Some(shared) = &self.0 else { return Ok(wanted) };
        match shared.control.config().uplink_bytes_per_second_max {
            0 => Ok(wanted),
            rate => shared.bucket.lock().grant(rate, wanted, Instant::now()),
        }
    }

    /// Bytes that were granted and not sent.
    fn give_back(&self, bytes: usize) {
        if let Some(shared) = &self.0 {
            let mut bucket = shared.bucket.lock();
            bucket.tokens = bucket.tokens.saturating_add(bytes as u64);
        }
    }
}

impl Bucket {
    fn grant(&mut self, rate: u64, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let elapsed = now.saturating_duration_since(self.refilled);
        let earned = u64::try_from(u128::from(rate) * elapsed.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            let burst = u64::try_from(u128::from(rate) * BURST.as_millis() / 1_000).unwrap_or(u64::MAX);
            let most = burst.max(BURST_BYTES_MIN);
            // What is not a whole token yet stays in the clock; what does not fit is gone.
            let counted = u128::from(earned) * 1_000_000_000 / u128::from(rate);
            self.refilled += Duration::from_nanos(u64::try_from(counted).unwrap_or(u64::MAX));
            self.tokens = self.tokens.saturating_add(earned).min(most);
        }
        let least = WRITE_BYTES_MIN.min(wanted as u64);
        if self.tokens < least {
            let missing = u128::from(least - self.tokens) * 1_000_000_000 / u128::from(rate);
            return Err(Duration::from_nanos(u64::try_from(missing).unwrap_or(u64::MAX)).max(Duration::from_millis(1)));
        }
        let granted = wanted.min(usize::try_from(self.tokens).unwrap_or(usize::MAX));
        self.tokens -= granted as u64;
        Ok(granted)
    }
}

/// A stream that writes no faster than its [`Pace`].
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    pace: Pace,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, pace: Pace) -> Self {
        Self { stream, pace, wait: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            let granted = match self.pace.grant(buffer.len()) {
                Ok(granted) => granted,
                Err(pause) => {
                    self.wait = Some(Box::pin(tokio::time::sleep(pause)));
                    continue;
                }
            };
            let result = Pin::new(&mut self.stream).poll_write(context, &buffer[..granted]);
            let sent = match &result {
                Poll::Ready(Ok(sent)) => *sent,
                _ => 0,
            };
            self.pace.give_back(granted - sent.min(granted));
            return result;
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::budget::BudgetConfig;

    #[test]
    fn a_bucket_never_gives_more_than_the_rate_and_one_burst() {
        let begin = Instant::now();
        let mut bucket = Bucket { tokens: 0, refilled: begin };
        let (rate, mut sent, mut now) = (50_000_u64, 0_u64, begin);
        for _ in 0..10_000 {
            match bucket.grant(rate, 3_000, now) {
                Ok(granted) => sent += granted as u64,
                Err(pause) => now += pause,
            }
        }
        let seconds = (now - begin).as_secs_f64();
        assert!(seconds > 10.0, "it made them wait");
        let rate_seen = sent as f64 / seconds;
        assert!((49_000.0..=51_000.0).contains(&rate_seen), "{rate_seen}");
        // A long pause is worth one burst.
        let mut burst = 0;
        now += Duration::from_secs(3_600);
        while let Ok(granted) = bucket.grant(rate, 3_000, now) {
            burst += granted as u64;
        }
        assert!(burst <= 12_500 + 1_024, "{burst}");
    }

    #[tokio::test]
    async fn a_stream_keeps_the_ceiling_and_loses_nothing() {
        let config = BudgetConfig { uplink_bytes_per_second_max: 64 * 1024, ..BudgetConfig::default() };
        let control = Arc::new(BudgetControl::new(config, Arc::default()));
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut paced = Paced::new(near, Pace::new(Arc::clone(&control)));
        let data: Vec<u8> = (0..96 * 1024_u32).map(|index| (index % 251) as u8).collect();
        let begin = Instant::now();
        let expected = data.clone();
        let reader = tokio::spawn(async move {
            let mut seen = Vec::new();
            far.read_to_end(&mut seen).await.unwrap();
            seen
        });
        paced.write_all(&data).await.unwrap();
        let took = begin.elapsed();
        // Without a ceiling the rest goes at once.
        control.set_config(BudgetConfig::default());
        let begin = Instant::now();
        paced.write_all(&data).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
        drop(paced);
        assert!(took > Duration::from_millis(1_200), "96 KiB at 64 KiB/s took {took:?}");
        assert!(reader.await.unwrap() == [expected.clone(), expected].concat());
    }
}
