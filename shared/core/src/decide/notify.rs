//! Handles the notifications of a record.

use crate::{
    decide::{Action, Alarm, Step},
    notify::{Delivery, Notified, Notify},
};

impl Step<'_> {
    /// Claims the delivery of its pending notifications, if any.
    pub(super) fn notify(&mut self) -> Option<Action> {
        let (now, lease) = (self.now, self.timers().lease);
        let pending_notifications = self.record.pending_notifications.as_mut()?;
        pending_notifications.claims += 1;
        pending_notifications.since.get_or_insert(now);
        let nth = pending_notifications.claims;
        self.record.check_at = Some(now.plus(lease));
        Some(Action::Notify(nth))
    }

    /// Claims the delivery again, because nothing shows that the claimed notifications were delivered.
    pub(super) fn due_to_notify(&mut self) -> Option<Action> {
        let since = self.record.pending_notifications.as_ref()?.since;
        if since.is_some_and(|since| self.now >= since.plus(self.timers().give_up_after)) {
            self.alarm = Some(Alarm::NotificationsFailed);
            self.record.pending_notifications = None;
            self.record.settle_or_notify(self.now, self.rules);
            return None;
        }
        self.notify()
    }

    /// Adds the notification targets of a repeated submission, which may have ended already.
    pub(super) fn listen(&mut self, wanted: &Notify) -> Option<Action> {
        let is_news = self.record.add_listeners(wanted);
        if !is_news || !self.record.state().is_terminal() {
            return None;
        }
        self.record.settle_or_notify(self.now, self.rules);
        self.notify()
    }

    /// Removes what was delivered from the pending notifications.
    pub(super) fn delivered(&mut self, delivery: &Delivery) {
        // After this many attempts, the delivery is retried only when its claim has expired.
        const SOON: u32 = 4;
        let (now, backoff) = (self.now, self.backoff(delivery.nth));
        let is_claimed = self.record.state().is_terminal();
        let Some(pending_notifications) = self.record.pending_notifications.as_deref_mut().filter(|_| is_claimed)
        else {
            return;
        };
        let mut notified = self.record.notified.as_deref().cloned().unwrap_or_default();
        if delivery.event_bus && pending_notifications.notify.event_bus.take().is_some() {
            notified.event_bus_at = Some(now);
        }
        let is_current = delivery.nth == pending_notifications.claims;
        if delivery.task_token
            && is_current
            && let Some(token) = pending_notifications.notify.task_token.take()
        {
            (notified.task_token_at, notified.task_token) = (Some(now), Some(token.digest()));
        }
        if is_current {
            pending_notifications.error.clone_from(&delivery.error);
        }
        let is_done = pending_notifications.notify.is_empty();
        self.record.notified = (notified != Notified::default()).then(|| Box::new(notified));
        if is_done {
            self.record.pending_notifications = None;
            self.record.settle_or_notify(now, self.rules);
        } else if is_current && delivery.nth <= SOON {
            self.check_by(now.plus(backoff));
        }
    }
}
