//! Panics of the engine, at the places and as often as a test orders them.

use std::collections::BTreeMap;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use ottla::{Environment, EnvironmentBuilder};
use rand::{Rng, RngExt};

/// Where a panic ends what is done again by whoever waits for it, and nothing else.
pub const HARMLESS: [&str; 8] =
    ["dial", "connection", "metadata", "producer id", "lane", "produce", "offsets", "fetch"];

/// Where one fails the records that are there.
pub const OF_RECORDS: [&str; 2] = ["sender", "compression"];

/// Panics that are still to come, by place. Cheap to clone; clones are the same ones.
#[derive(Clone, Default)]
pub struct Mishaps(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Mishaps {
    /// So many panics at a place, from its next passing on.
    pub fn order(&self, place: &'static str, times: usize) {
        self.places().insert(place, times);
    }

    /// A few panics at one of the places.
    pub fn draw(&self, places: &[&'static str], rng: &mut impl Rng) {
        self.order(places[rng.random_range(0..places.len())], rng.random_range(1..4));
    }

    /// How many of those ordered for a place are still to come.
    pub fn left(&self, place: &str) -> usize {
        self.places().get(place).copied().unwrap_or_default()
    }

    /// No more of them.
    pub fn clear(&self) {
        self.places().clear();
    }

    /// An environment that they happen in.
    pub fn at(&self, environment: EnvironmentBuilder) -> Environment {
        say_nothing_of_them();
        let this = self.clone();
        let panics = move |place| match this.places().get_mut(place) {
            Some(times @ 1..) => {
                *times -= 1;
                true
            }
            _ => false,
        };
        environment.mishaps(panics).build()
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A trace for each would hide those that nobody ordered.
fn say_nothing_of_them() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            let ordered = info.payload_as_str().is_some_and(|s| s.ends_with("ordered by a test"));
            if !ordered {
                others(info);
            }
        }));
    });
}
