//! The two lanes in which records leave the buffer: those that wait since before the last rollback, and the new ones.
//!
//! After a long time without a server there may be gigabytes of the former, and nobody wants to wait for hours to see
//! what happens now. So a lease takes up to half of its records from the new lane and the rest from the old one, each in
//! the order of their numbers. When the old lane is empty, the new one is all there is.

use crate::buffer::RecordNumber;

/// Where a lane begins, where the next lease goes on, and where it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// All records of the lane below the cursor were leased or are gone.
    pub(super) first: RecordNumber,
    pub(super) cursor: RecordNumber,
    /// The first number that is not in it any more.
    end: Option<RecordNumber>,
}

/// See the module documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes {
    pub(super) old: Lane,
    pub(super) new: Option<Lane>,
    /// Whose turn it is when a lease has an odd number of places.
    is_turn_of_new: bool,
}

impl Lane {
    fn from(first: RecordNumber) -> Self {
        Self { first, cursor: first, end: None }
    }

    pub(super) fn holds(&self, number: RecordNumber) -> bool {
        self.end.is_none_or(|end| number < end)
    }
}

impl Lanes {
    /// Everything that waits is old; `next` is the number of the next record.
    pub(super) fn split_at(next: RecordNumber, is_empty: bool) -> Self {
        let all = Lane::from(RecordNumber::FIRST);
        if is_empty {
            return Self { old: all, new: None, is_turn_of_new: true };
        }
        Self { old: Lane { end: Some(next), ..all }, new: Some(Lane::from(next)), is_turn_of_new: true }
    }

    /// How many of `records` the new lane may have.
    pub(super) fn share_of_new(&mut self, records: usize) -> usize {
        let is_odd = records % 2 == 1;
        let share = records / 2 + usize::from(is_odd && self.is_turn_of_new);
        self.is_turn_of_new ^= is_odd;
        share
    }

    /// The old lane is empty: the new one takes its place. `false`: there is none.
    pub(super) fn join(&mut self) -> bool {
        let Some(new) = self.new.take() else { return false };
        self.old = Lane { first: RecordNumber::FIRST, ..new };
        true
    }
}
