//! What one broker speaks. Belongs to a connection, not to a broker or a cluster: during a rolling
//! upgrade the same broker comes back with other versions.

/// Version ranges by request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    ranges: Vec<(i16, i16, i16)>,
    /// The feature `group.version`, as the cluster has finalised it.
    group: Option<i16>,
}

impl Versions {
    pub(crate) fn new(ranges: impl Iterator<Item = (i16, i16, i16)>) -> Self {
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_unstable();
        Self { ranges, group: None }
    }

    /// `features`: those that the cluster has finalised, with the level.
    pub(crate) fn with_features<'a>(
        mut self,
        features: impl IntoIterator<Item = (&'a str, i16)>,
    ) -> Self {
        let mut features = features.into_iter();
        self.group = features.find(|(name, _)| *name == "group.version").map(|(_, level)| level);
        self
    }

    /// The finalised `group.version`: from 1 on there are groups of the next generation (KIP-848).
    pub(crate) fn group(&self) -> Option<i16> {
        self.group
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
        let i = self.ranges.binary_search_by_key(&api_key, |r| r.0).ok()?;
        Some(self.ranges[i])
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
        assert_eq!(v.group(), None);
        assert_eq!(v.with_features([("x", 3), ("group.version", 1)]).group(), Some(1));
    }
}
