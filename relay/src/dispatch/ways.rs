//! Which priority of each route takes messages at the moment, to notice when a route fails over or back. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::CompiledRoute;
use crate::routing;

/// What has become of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) route: Arc<CompiledRoute>,
    /// The priority that took its messages, counted from 0; `None` when none did, or the route is new.
    pub(super) from: Option<usize>,
    /// The priority that takes them now; `None` when none does.
    pub(super) to: Option<usize>,
    /// Whether the route has just been made, so that nothing has changed.
    pub(super) new: bool,
}

/// The priority in use by route name.
#[derive(Debug, Default)]
pub(super) struct Ways(BTreeMap<String, Option<usize>>);

impl Ways {
    /// Looks at every route again. Routes that are gone are forgotten.
    pub(super) fn update(
        &mut self,
        routes: &[Arc<CompiledRoute>],
        works: impl Fn(&str) -> bool,
    ) -> Vec<Change> {
        self.0.retain(|name, _| routes.iter().any(|route| route.name == *name));
        let mut changes = Vec::new();
        for route in routes {
            let to = routing::working_priority(route, &works);
            let before = self.0.insert(route.name.clone(), to);
            if before != Some(to) {
                let (from, new) = (before.flatten(), before.is_none());
                changes.push(Change { route: route.clone(), from, to, new });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preference;

    fn route(name: &str, priorities: &[&[&str]]) -> Arc<CompiledRoute> {
        let preference = |upstream: &&str| Preference { upstream: (*upstream).to_owned(), weight: 1 };
        Arc::new(CompiledRoute {
            name: name.to_owned(),
            sender_domains: Vec::new(),
            recipient_domains: Vec::new(),
            identities: Vec::new(),
            preferences: priorities.iter().map(|group| group.iter().map(preference).collect()).collect(),
        })
    }

    #[test]
    fn only_a_route_whose_priority_changes_is_told() {
        let routes = [route("a", &[&["ses", "mailgun"], &["backup"]]), route("b", &[&["ses"]])];
        let mut ways = Ways::default();
        let mut check = |working: &[&str], expected: &[(&str, Option<usize>, Option<usize>)]| {
            let changes = ways.update(&routes, |upstream| working.contains(&upstream));
            let told: Vec<_> = changes.iter().map(|it| (it.route.name.as_str(), it.from, it.to)).collect();
            assert_eq!(told, expected, "{working:?}");
        };
        check(&["ses", "mailgun", "backup"], &[("a", None, Some(0)), ("b", None, Some(0))]);
        check(&["mailgun", "backup"], &[("b", Some(0), None)]);
        check(&["backup"], &[("a", Some(0), Some(1))]);
        check(&[], &[("a", Some(1), None)]);
        check(&["ses"], &[("a", None, Some(0)), ("b", None, Some(0))]);
    }
}
