//! What waits in lanes: first come, first served within a lane, and the lanes take turns.

use std::collections::BTreeMap;

/// A place in [`Lanes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    lane: u64,
    /// Which arrival.
    number: u64,
}

impl Place {
    pub(crate) fn new(lane: u64, number: u64) -> Self {
        Self { lane, number }
    }
}

#[derive(Debug)]
pub(crate) struct Lanes<V> {
    waiting: BTreeMap<Place, V>,
    /// The lane whose turn was last; the next one by number follows.
    last: u64,
}

impl<V> Default for Lanes<V> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            last: 0,
        }
    }
}

impl<V> Lanes<V> {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn insert(&mut self, place: Place, value: V) {
        self.waiting.insert(place, value);
    }

    pub(crate) fn get_mut(&mut self, place: Place) -> Option<&mut V> {
        self.waiting.get_mut(&place)
    }

    pub(crate) fn get(&self, place: Place) -> Option<&V> {
        self.waiting.get(&place)
    }

    /// Whose turn it is.
    pub(crate) fn front(&self) -> Option<Place> {
        let after = self.last.checked_add(1);
        let next = after.and_then(|lane| self.first_from(lane));
        next.or_else(|| self.first_from(0))
    }

    fn first_from(&self, lane: u64) -> Option<Place> {
        let mut from = self.waiting.range(Place::new(lane, 0)..);
        from.next().map(|(place, _)| *place)
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<V> {
        self.waiting.remove(&place)
    }

    /// The holder of this place has its turn; another lane's is next.
    pub(crate) fn turn(&mut self, place: Place) {
        self.last = place.lane;
    }

    /// The longest waiting of a lane.
    pub(crate) fn oldest_of(&self, lane: u64) -> Option<Place> {
        self.first_from(lane).filter(|place| place.lane == lane)
    }

    /// The longest waiting of all. Looks at each lane.
    pub(crate) fn oldest(&self) -> Option<Place> {
        let next = |place: &Place| self.first_from(place.lane.checked_add(1)?);
        let firsts = std::iter::successors(self.first_from(0), next);
        firsts.min_by_key(|place| place.number)
    }

    /// All, lane by lane.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.waiting.values()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.waiting.values_mut()
    }

    /// Empties it, in order of arrival.
    pub(crate) fn drain(&mut self) -> Vec<V> {
        let mut all: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        all.sort_by_key(|(place, _)| place.number);
        all.into_iter().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(places: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut lanes = Lanes::default();
        for &(lane, number) in places {
            lanes.insert(Place::new(lane, number), ());
        }
        let mut order = Vec::new();
        while let Some(place) = lanes.front() {
            lanes.turn(place);
            lanes.remove(place);
            order.push((place.lane, place.number));
        }
        order
    }

    #[test]
    fn one_lane_is_first_come_first_served() {
        assert_eq!(order(&[(0, 1), (0, 2), (0, 3)]), [(0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn lanes_take_turns_however_long_one_is() {
        let places = [(1, 1), (1, 2), (1, 3), (u64::MAX, 4), (2, 5), (2, 6)];
        let expected = [(1, 1), (2, 5), (u64::MAX, 4), (1, 2), (2, 6), (1, 3)];
        assert_eq!(order(&places), expected);
    }

    #[test]
    fn the_oldest_is_found_over_all_lanes_and_in_each() {
        let mut lanes = Lanes::default();
        for (lane, number) in [(7, 4), (3, 9), (3, 5), (0, 6)] {
            lanes.insert(Place::new(lane, number), ());
        }
        assert_eq!(lanes.oldest(), Some(Place::new(7, 4)));
        assert_eq!(lanes.oldest_of(3), Some(Place::new(3, 5)));
        assert_eq!(lanes.oldest_of(4), None);
    }
}
