//! A stream in parts, from a task on the lake's threads to a reader elsewhere.
//!
//! It ends only when its task says so: a task that panicked, or was stopped, does not look like the end of the data.

use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::LakeError;

enum Message<T> {
    Part(T),
    Failed(LakeError),
    End,
}

pub(super) fn channel<T>(parts_waiting_max: usize) -> (PartSender<T>, PartReceiver<T>) {
    let (sender, receiver) = mpsc::channel(parts_waiting_max);
    (PartSender(sender), PartReceiver { receiver, ended: false })
}

pub(super) struct PartSender<T>(mpsc::Sender<Message<T>>);

impl<T> PartSender<T> {
    /// Whether the reader is still there.
    pub(super) async fn send(&self, part: T) -> bool {
        self.0.send(Message::Part(part)).await.is_ok()
    }

    pub(super) async fn end(&self) {
        // The reader may be gone.
        drop(self.0.send(Message::End).await);
    }

    /// Fails without waiting: a reader that does not keep up learns of it when it finds no end.
    pub(super) fn try_fail(&self, error: LakeError) {
        drop(self.0.try_send(Message::Failed(error)));
    }

    pub(super) async fn fail(&self, error: LakeError) {
        drop(self.0.send(Message::Failed(error)).await);
    }
}

pub(super) struct PartReceiver<T> {
    receiver: mpsc::Receiver<Message<T>>,
    ended: bool,
}

impl<T> PartReceiver<T> {
    /// The next part, or an error, which is the last item.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, LakeError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(message) = self.receiver.poll_recv(context) else { return Poll::Pending };
        self.ended = !matches!(message, Some(Message::Part(_)));
        Poll::Ready(match message {
            Some(Message::Part(part)) => Some(Ok(part)),
            Some(Message::Failed(error)) => Some(Err(error)),
            Some(Message::End) => None,
            None => Some(Err(LakeError::Closed("a task ended before its data did".to_owned()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_without_saying_so_is_an_error() {
        let (sender, mut receiver) = channel(2);
        sender.send(1).await;
        drop(sender);
        assert!(matches!(poll_fn(|context| receiver.poll(context)).await, Some(Ok(1))));
        assert!(matches!(poll_fn(|context| receiver.poll(context)).await, Some(Err(LakeError::Closed(_)))));
        assert!(poll_fn(|context| receiver.poll(context)).await.is_none());

        let (sender, mut receiver) = channel::<u8>(2);
        sender.end().await;
        assert!(poll_fn(|context| receiver.poll(context)).await.is_none());
    }
}
