//! A queue between two threads, bounded by items and by bytes, whose sender never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// What a queue needs to know of an item.
pub(crate) trait Weigh {
    /// About how many bytes of memory it takes.
    fn weight_bytes(&self) -> usize;
    /// How many things it is.
    fn count(&self) -> usize {
        1
    }
}

/// How large a queue may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// The end that items are put into.
pub(crate) struct QueueSender<T> {
    sender: SyncSender<T>,
    load: Arc<Load>,
    limits: QueueLimits,
}

/// The end that items are taken from.
pub(crate) struct QueueReceiver<T> {
    receiver: Receiver<T>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    items: AtomicUsize,
    bytes: AtomicUsize,
}

/// How full a queue is.
#[derive(Clone)]
pub(crate) struct QueueGauge(Arc<Load>);

impl QueueGauge {
    pub(crate) fn items(&self) -> usize {
        self.0.items.load(Ordering::Relaxed)
    }
}

/// Why an item was not taken; the item comes back.
#[derive(Debug)]
pub(crate) enum SendError<T> {
    Full(T),
    Closed(T),
}

pub(crate) fn queue<T: Weigh>(limits: QueueLimits) -> (QueueSender<T>, QueueReceiver<T>) {
    let (sender, receiver) = sync_channel(limits.items);
    let load = Arc::new(Load::default());
    (QueueSender { sender, load: Arc::clone(&load), limits }, QueueReceiver { receiver, load })
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), load: Arc::clone(&self.load), limits: self.limits }
    }
}

impl<T: Weigh> QueueSender<T> {
    /// Puts an item in, at once or not at all.
    pub(crate) fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let (bytes, count) = (item.weight_bytes(), item.count());
        // Reserved first, so that many senders together keep the limit.
        if self.load.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > self.limits.bytes {
            self.load.bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(SendError::Full(item));
        }
        self.load.items.fetch_add(count, Ordering::AcqRel);
        self.sender.try_send(item).map_err(|error| {
            self.load.bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.load.items.fetch_sub(count, Ordering::AcqRel);
            match error {
                std::sync::mpsc::TrySendError::Full(item) => SendError::Full(item),
                std::sync::mpsc::TrySendError::Disconnected(item) => SendError::Closed(item),
            }
        })
    }

    pub(crate) fn gauge(&self) -> QueueGauge {
        QueueGauge(Arc::clone(&self.load))
    }
}

impl<T: Weigh> QueueReceiver<T> {
    /// Waits for an item.
    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout).inspect(|item| self.taken(item))
    }

    /// Waits for an item for as long as one may come.
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        self.receiver.recv().inspect(|item| self.taken(item))
    }

    /// Takes an item if there is one.
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.receiver.try_recv().inspect(|item| self.taken(item))
    }

    fn taken(&self, item: &T) {
        self.load.bytes.fetch_sub(item.weight_bytes(), Ordering::AcqRel);
        self.load.items.fetch_sub(item.count(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn weight_bytes(&self) -> usize {
            *self
        }
    }

    #[test]
    fn it_holds_both_limits_and_gives_room_back() {
        let (sender, receiver) = queue(QueueLimits { items: 3, bytes: 100 });
        sender.try_send(60_usize).unwrap();
        assert!(matches!(sender.try_send(41), Err(SendError::Full(41))), "too many bytes");
        sender.try_send(40).unwrap();
        assert_eq!(receiver.try_recv().unwrap(), 60);
        for _ in 0..2 {
            sender.try_send(1).unwrap();
        }
        assert!(matches!(sender.try_send(1), Err(SendError::Full(1))), "too many items");
        assert_eq!(sender.gauge().items(), 3);
        for expected in [40, 1, 1] {
            assert_eq!(receiver.recv_timeout(Duration::ZERO).unwrap(), expected);
        }
        sender.try_send(100).unwrap();
        drop(receiver);
        assert!(matches!(sender.try_send(0), Err(SendError::Closed(0))));
    }
}
