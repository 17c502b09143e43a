//! What one broker speaks. Belongs to a connection, not to a broker or a cluster: during a rolling
//! upgrade the same broker comes back with other versions.

/// Version ranges by request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    pub(crate) fn new(ranges: impl Iterator<Item = (i16, i16, i16)>) -> Self {
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable();
        Self(ranges)
    }

    /// The newest version in both ranges.
    pub(crate) fn pick(&self, api_key: i16, ours: (i16, i16)) -> Option<i16> {
        let (_, min, max) = self.range(api_key)?;
        let newest = max.min(ours.1);
        (newest >= min.max(ours.0)).then_some(newest)
    }

    /// For messages.
    pub(crate) fn show(&self, api_key: i16) -> String {
        match self.range(api_key) {
            Some((_, min, max)) => format!("{min} to {max}"),
            None => "none".into(),
        }
    }

    fn range(&self, api_key: i16) -> Option<(i16, i16, i16)> {
        let i = self.0.binary_search_by_key(&api_key, |r| r.0).ok()?;
        Some(self.0[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_common() {
        let v = Versions::new([(1, 4, 17), (0, 0, 3)].into_iter());
        assert_eq!(v.pick(1, (4, 18)), Some(17));
        assert_eq!(v.pick(1, (4, 12)), Some(12));
        assert_eq!(v.pick(0, (5, 9)), None);
        assert_eq!(v.pick(1, (0, 3)), None, "older than the broker knows");
        assert_eq!(v.pick(9, (0, 1)), None);
        assert_eq!(v.show(9), "none");
    }
}
