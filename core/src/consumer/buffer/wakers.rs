//! Those who wait for something to be handed out: a consumer, and whoever takes from a part of it. Mostly one.

use std::collections::BTreeMap;
use std::task::Waker;

/// Who waits, by the number of who takes: at most one waker for each.
#[derive(Default)]
pub(super) struct Wakers {
    /// The first of them: with one, nothing is allocated.
    one: Option<(u64, Waker)>,
    more: BTreeMap<u64, Waker>,
}

impl Wakers {
    /// Whether this waker of `who` is known already.
    pub(super) fn knows(&self, who: u64, waker: &Waker) -> bool {
        let one = self.one.as_ref().filter(|(of, _)| *of == who).map(|(_, waker)| waker);
        one.or_else(|| self.more.get(&who)).is_some_and(|known| known.will_wake(waker))
    }

    /// Keeps a waker of `who`. Gives the one that it replaces, which is not to be dropped under a lock.
    pub(super) fn keep(&mut self, who: u64, waker: Waker) -> Option<Waker> {
        let one = self.one.as_mut().filter(|(of, _)| *of == who).map(|(_, waker)| waker);
        if let Some(known) = one.or_else(|| self.more.get_mut(&who)) {
            return Some(std::mem::replace(known, waker));
        }
        match self.one {
            None => self.one = Some((who, waker)),
            Some(_) => drop(self.more.insert(who, waker)),
        }
        None
    }

    /// The one of `who`: to be woken, or dropped, without the lock.
    pub(super) fn take_of(&mut self, who: u64) -> Option<Waker> {
        if let Some((_, waker)) = self.one.take_if(|(of, _)| *of == who) {
            return Some(waker);
        }
        self.more.remove(&who)
    }

    /// All of them, to be woken without the lock.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let Self { one, more } = std::mem::take(self);
        one.map(|(_, waker)| waker).into_iter().chain(more.into_values())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_has_its_last_one() {
        let counts: [Arc<Count>; 4] = Default::default();
        let waker = |n: usize| Waker::from(Arc::clone(&counts[n]));
        let mut wakers = Wakers::default();
        assert!(!wakers.knows(1, &waker(0)));
        assert!(wakers.keep(1, waker(0)).is_none() && wakers.keep(2, waker(1)).is_none());
        assert!(wakers.knows(1, &waker(0)) && !wakers.knows(2, &waker(0)));
        assert!(wakers.keep(1, waker(2)).is_some() && wakers.keep(2, waker(3)).is_some());
        assert!(wakers.keep(3, waker(0)).is_none() && wakers.take_of(4).is_none());
        assert!(wakers.take_of(3).is_some() && wakers.take_of(3).is_none());
        assert!(wakers.take_of(1).is_some_and(|taken| taken.will_wake(&waker(2))));
        assert!(wakers.keep(1, waker(2)).is_none());
        wakers.take().for_each(Waker::wake);
        assert_eq!(wakers.take().count(), 0);
        assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [0, 0, 1, 1]);
    }
}
