//! A queue with many receivers. A receiver that is dropped while it waits loses no item.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Semaphore;

use crate::http::lock;

#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    /// A permit for each item.
    count: Semaphore,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: Mutex::default(), count: Semaphore::new(0) }
    }
}

impl<T> Queue<T> {
    pub(super) fn push(&self, item: T) {
        lock(&self.items).push_back(item);
        self.count.add_permits(1);
    }

    /// Puts an undelivered item back to the front.
    pub(super) fn push_front(&self, item: T) {
        lock(&self.items).push_front(item);
        self.count.add_permits(1);
    }

    pub(super) async fn pop(&self) -> T {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = self.count.acquire().await else { std::future::pending().await };
            permit.forget();
            if let Some(item) = lock(&self.items).pop_front() {
                return item;
            }
        }
    }

    pub(super) fn try_pop(&self) -> Option<T> {
        self.count.try_acquire().ok()?.forget();
        lock(&self.items).pop_front()
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.items).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropped_receiver_loses_no_item() {
        let queue = Queue::default();
        {
            let mut waiting = Box::pin(queue.pop());
            assert!(futures_poll(&mut waiting).is_none());
            queue.push(1);
        }
        assert_eq!(queue.pop().await, 1);
        assert!(queue.try_pop().is_none());
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
