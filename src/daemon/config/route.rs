//! The tables `[[route]]`: which parts of the tree other services keep, and how long their copies are good for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::layer::Bounded;
use crate::backend;
use crate::model::SecretName;
use crate::route::Cache;

/// One table `[[route]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteLayer {
    /// The directory below which the service's secrets are.
    pub path: Spanned<SecretName>,
    /// The NAME of a table `[backend.NAME]`.
    pub backend: Spanned<String>,
    pub fresh_seconds: Option<Bounded<2, 31_536_000>>,
    /// 0: what is not fresh is not served without asking.
    pub stale_seconds: Option<Bounded<0, 31_536_000>>,
    pub negative_seconds: Option<Bounded<1, 86_400>>,
    pub prefetch: Option<bool>,
    pub timeout_seconds: Option<Bounded<1, 60>>,
}

/// The values of `default_backend`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum DefaultBackend {
    /// The store.
    Local,
}

/// One route, complete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteConfig {
    pub path: SecretName,
    pub backend: String,
    pub cache: Cache,
}

impl RouteConfig {
    pub(super) fn of(layer: &RouteLayer) -> Self {
        let default = Cache::default();
        let seconds = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        Self {
            path: layer.path.get_ref().clone(),
            backend: layer.backend.get_ref().clone(),
            cache: Cache {
                fresh: seconds(layer.fresh_seconds.map(|time| time.0), default.fresh),
                stale: seconds(layer.stale_seconds.map(|time| time.0), default.stale),
                negative: seconds(layer.negative_seconds.map(|time| time.0), default.negative),
                prefetch: layer.prefetch.unwrap_or(default.prefetch),
                timeout: seconds(layer.timeout_seconds.map(|time| time.0), default.timeout),
            },
        }
    }
}

/// Says what is wrong with routes that are well formed one by one, and where.
pub(super) fn fault(
    routes: &[RouteLayer],
    backends: &BTreeMap<String, backend::Settings>,
) -> Option<(usize, String)> {
    for (number, route) in routes.iter().enumerate() {
        let before = routes.get(..number).unwrap_or_default();
        let (path, backend) = (&route.path, &route.backend);
        if before.iter().any(|other| other.path.get_ref() == path.get_ref()) {
            let what = format!("there is a route of the path {} already", path.get_ref());
            return Some((path.span().start, what));
        }
        if !backends.contains_key(backend.get_ref()) {
            let what = format!("there is no table [backend.{}]", backend.get_ref());
            return Some((backend.span().start, what));
        }
        if before.iter().any(|other| other.backend.get_ref() == backend.get_ref()) {
            let what = format!(
                "the backend {} has a route already: a second one would show its secrets twice",
                backend.get_ref()
            );
            return Some((backend.span().start, what));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::Layer;

    const GOOD: &str = "default_backend = \"local\"\n\
        [[route]]\npath = \"prod/vault\"\nbackend = \"vault\"\nfresh_seconds = 60\n\
        [backend.vault]\nkind = \"vault\"\naddress = \"https://vault.example\"\n\
        [backend.vault.auth]\nmethod = \"token\"\ntoken_file = \"/run/token\"\n";

    #[test]
    fn what_is_left_out_of_a_route_has_its_default() {
        let layer = Layer::parse(GOOD).unwrap();
        let [route] = layer.route.as_deref().unwrap() else { panic!("one route") };
        let fresh = Duration::from_secs(60);
        let expected = RouteConfig {
            path: "prod/vault".parse().unwrap(),
            backend: "vault".into(),
            cache: Cache { fresh, ..Cache::default() },
        };
        assert_eq!(RouteConfig::of(route), expected);
    }

    #[test]
    fn what_is_wrong_with_routes_is_said_with_its_place() {
        for (from, to, place) in [
            ("\"prod/vault\"", "\"prod//vault\"", (3, 8)),
            ("\"prod/vault\"", "\".hidden\"", (3, 8)),
            ("backend = \"vault\"", "backend = \"other\"", (4, 11)),
            ("fresh_seconds", "fresh_second", (5, 1)),
            ("60", "1", (5, 17)),
            ("\"local\"", "\"vault\"", (1, 19)),
            (
                "[backend.vault]",
                "[[route]]\npath = \"other\"\nbackend = \"vault\"\n[backend.vault]",
                (8, 11),
            ),
            (
                "[backend.vault]",
                "[[route]]\npath = \"prod/vault\"\nbackend = \"vault\"\n[backend.vault]",
                (7, 8),
            ),
        ] {
            let fault = Layer::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert_eq!((fault.line, fault.column), place, "{to}: {}", fault.message);
        }
    }
}
