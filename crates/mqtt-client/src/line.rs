//! A line of futures that wait for room: first come, first served.
//!
//! Only the front of the line may go in, and newcomers only when nobody waits, so that publishes
//! made one after the other are sent in that order however many wait.

use std::{collections::VecDeque, task::Waker};

use crate::shared::renew;

/// A place in a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

#[derive(Debug, Default)]
pub(crate) struct Line {
    /// In order of tickets. The waker is gone once it was woken and has not come back yet.
    waiting: VecDeque<(Ticket, Option<Waker>)>,
    issued: u64,
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it is the turn of the holder of `ticket`, or of a newcomer without one.
    pub(crate) fn is_turn(&self, ticket: Option<Ticket>) -> bool {
        self.waiting.front().map(|(front, _)| *front) == ticket
    }

    /// Joins the end of the line, or keeps the place held. Returns the waker that `waker` replaces.
    pub(crate) fn wait(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) -> Option<Waker> {
        if let Some(place) = ticket.and_then(|ticket| self.place(ticket)) {
            let (_, slot) = self.waiting.get_mut(place)?;
            if let Some(known) = slot {
                return renew(known, waker);
            }
            *slot = Some(waker.clone());
            return None;
        }
        self.issued += 1;
        let joined = Ticket(self.issued);
        *ticket = Some(joined);
        self.waiting.push_back((joined, Some(waker.clone())));
        None
    }

    /// Leaves the line, having gone in or given up, and returns the waker left in it. The caller
    /// wakes the next one.
    pub(crate) fn leave(&mut self, ticket: &mut Option<Ticket>) -> Option<Waker> {
        let place = self.place(ticket.take()?)?;
        self.waiting.remove(place)?.1
    }

    /// The front of the line, to be woken because there is room; `None` if it was woken already.
    pub(crate) fn next(&mut self) -> Option<Waker> {
        self.waiting.front_mut()?.1.take()
    }

    /// Takes the wakers of the first `n`, to be woken because there is room for them.
    pub(crate) fn first(&mut self, n: usize, wakers: &mut Vec<Waker>) {
        wakers.extend(
            self.waiting
                .iter_mut()
                .take(n)
                .filter_map(|(_, waker)| waker.take()),
        );
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiting
            .binary_search_by_key(&ticket.0, |(ticket, _)| ticket.0)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_goes_first_and_newcomers_wait() {
        let waker = Waker::noop();
        let mut line = Line::default();
        assert!(line.is_turn(None));
        let (mut first, mut second) = (None, None);
        line.wait(&mut first, waker);
        line.wait(&mut second, waker);
        assert!(line.is_turn(first) && !line.is_turn(second) && !line.is_turn(None));

        line.leave(&mut first);
        assert!(line.is_turn(second) && !line.is_turn(None));
        line.leave(&mut second);
        assert!(line.is_turn(None));
    }

    #[test]
    fn each_is_woken_once_until_it_waits_again() {
        let waker = Waker::noop();
        let mut line = Line::default();
        let mut tickets = [None; 3];
        tickets
            .iter_mut()
            .for_each(|ticket| drop(line.wait(ticket, waker)));
        let mut woken = Vec::new();
        line.first(2, &mut woken);
        assert_eq!(woken.len(), 2);
        assert!(line.next().is_none());
        line.wait(&mut tickets[0], waker);
        assert!(line.next().is_some());
        // One in the middle gives up: the order of the others stays.
        line.leave(&mut tickets[1]);
        line.leave(&mut tickets[0]);
        assert!(line.is_turn(tickets[2]));
    }
}
