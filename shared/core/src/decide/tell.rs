//! Telling the end: the outbox of a record that has ended.

use crate::{
    decide::{Action, Alarm, Step},
    on_end::{OnEnd, Telling, Told},
};

impl Step<'_> {
    /// Claims to tell its end to those in its outbox, if any.
    pub(super) fn tell(&mut self) -> Option<Action> {
        let (now, lease) = (self.now, self.timers().lease);
        let outbox = self.record.outbox.as_mut()?;
        outbox.claims += 1;
        outbox.since.get_or_insert(now);
        let nth = outbox.claims;
        self.record.check_at = Some(now.plus(lease));
        Some(Action::Tell(nth))
    }

    /// Those who were claimed to be told may not have been, as nothing says so.
    pub(super) fn due_untold(&mut self) -> Option<Action> {
        let since = self.record.outbox.as_ref()?.since;
        if since.is_some_and(|since| self.now >= since.plus(self.timers().give_up_after)) {
            self.alarm = Some(Alarm::Untold);
            self.record.outbox = None;
            self.record.rest_or_tell(self.now, self.rules);
            return None;
        }
        self.tell()
    }

    /// Somebody else may be waiting for the end, which may have come already.
    pub(super) fn listen(&mut self, wanted: &OnEnd) -> Option<Action> {
        let is_news = self.record.add_listeners(wanted);
        if !is_news || !self.record.state.is_terminal() {
            return None;
        }
        self.record.rest_or_tell(self.now, self.rules);
        self.tell()
    }

    /// Takes whoever was told out of the outbox.
    pub(super) fn told(&mut self, telling: &Telling) {
        // After these, it is told again when its claim is over.
        const SOON: u32 = 4;
        let (now, backoff) = (self.now, self.backoff(telling.nth));
        let is_claimed = self.record.state.is_terminal();
        let Some(outbox) = self.record.outbox.as_deref_mut().filter(|_| is_claimed) else { return };
        let mut told = self.record.told.as_deref().cloned().unwrap_or_default();
        if telling.event_bus && outbox.on_end.event_bus.take().is_some() {
            told.event_bus_at = Some(now);
        }
        let is_current = telling.nth == outbox.claims;
        if telling.task_token
            && is_current
            && let Some(token) = outbox.on_end.task_token.take()
        {
            (told.task_token_at, told.task_token) = (Some(now), Some(token.digest()));
        }
        if is_current {
            outbox.error.clone_from(&telling.error);
        }
        let is_done = outbox.on_end.is_empty();
        self.record.told = (told != Told::default()).then(|| Box::new(told));
        if is_done {
            self.record.outbox = None;
            self.record.rest_or_tell(now, self.rules);
        } else if is_current && telling.nth <= SOON {
            self.check_by(now.plus(backoff));
        }
    }
}
