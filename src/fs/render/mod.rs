//! `.templates` and `.oneiric`: files that are put together from secrets when they are opened.
//!
//! Which there are is the configuration's to say, and is replaced as a whole when that is read again.
//! A place follows from its name alone; whether it is there is asked of [`Set`].

mod layer;
mod lookup;
mod template;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::inject::oneiric::Project;
use crate::model::SecretName;

pub use template::Template;

pub(super) use layer::text as layer_text;
pub(super) use template::text as template_text;
pub(super) use uses::Uses;

/// Largest file in bytes, and what stat(2) shows as the size of one that the caller has not open.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// The files in force.
#[derive(Debug, Default)]
pub struct Renderings(ArcSwap<Set>);

/// Which files there are.
#[derive(Debug, Default)]
pub struct Set {
    /// By their names.
    pub templates: BTreeMap<Box<str>, Template>,
    /// `None`: there is no `.oneiric`.
    pub oneiric: Option<Oneiric>,
}

/// What is below `.oneiric`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Oneiric {
    /// Where the secrets are; `None` is everywhere.
    pub dir: Option<SecretName>,
    pub projects: Vec<Project>,
}

/// A place below `.templates` or `.oneiric`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Layer(Layer),
    /// `.oneiric` itself.
    Layers,
    /// `.oneiric/xdg/PROJECT`.
    Project(Project),
    Template(Box<str>),
    /// `.templates` itself.
    Templates,
    /// `.oneiric/xdg`, for `XDG_CONFIG_HOME`.
    Xdg,
}

/// A file below `.oneiric`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Layer {
    /// `secrets.env`.
    Env,
    /// `secrets.json`.
    Json,
    /// `xdg/PROJECT/local.yaml`.
    Local(Project),
    /// `PROJECT.yaml`.
    Settings(Project),
}

impl Renderings {
    /// Puts other files in the place of those before.
    pub fn replace(&self, set: Set) {
        self.0.store(Arc::new(set));
    }

    pub(super) fn current(&self) -> Arc<Set> {
        self.0.load_full()
    }
}

impl Set {
    /// Tells whether a place is there.
    pub(super) fn has(&self, place: &Place) -> bool {
        let has_project =
            |project| self.oneiric.as_ref().is_some_and(|own| own.projects.contains(project));
        match place {
            Place::Layer(Layer::Local(project) | Layer::Settings(project))
            | Place::Project(project) => has_project(project),
            Place::Layer(Layer::Env | Layer::Json) | Place::Layers | Place::Xdg => {
                self.oneiric.is_some()
            }
            Place::Template(name) => self.templates.contains_key(name),
            Place::Templates => true,
        }
    }

    /// Returns what is listed in a directory.
    pub(super) fn children(&self, directory: &Place) -> Vec<(String, Place)> {
        let projects = self.oneiric.iter().flat_map(|own| &own.projects);
        match directory {
            Place::Layer(_) | Place::Template(_) => Vec::new(),
            Place::Layers => {
                let layer = |name: &str, layer| (name.to_owned(), Place::Layer(layer));
                let mut all: Vec<_> = projects
                    .map(|project| {
                        layer(&format!("{project}.yaml"), Layer::Settings(project.clone()))
                    })
                    .collect();
                all.push(layer("secrets.env", Layer::Env));
                all.push(layer("secrets.json", Layer::Json));
                all.push(("xdg".into(), Place::Xdg));
                all
            }
            Place::Project(project) => {
                vec![("local.yaml".into(), Place::Layer(Layer::Local(project.clone())))]
            }
            Place::Templates => {
                let names = self.templates.keys();
                names.map(|name| (name.to_string(), Place::Template(name.clone()))).collect()
            }
            Place::Xdg => projects
                .map(|project| (project.to_string(), Place::Project(project.clone())))
                .collect(),
        }
    }
}

impl Place {
    /// Returns what stands below the root under a name.
    pub(super) fn top(name: &str) -> Option<Self> {
        match name {
            ".oneiric" => Some(Self::Layers),
            ".templates" => Some(Self::Templates),
            _ => None,
        }
    }

    /// Returns what a name means in this directory.
    pub(super) fn child(&self, name: &str) -> Option<Self> {
        match self {
            Self::Layer(_) | Self::Template(_) => None,
            Self::Layers => match name {
                "secrets.env" => Some(Self::Layer(Layer::Env)),
                "secrets.json" => Some(Self::Layer(Layer::Json)),
                "xdg" => Some(Self::Xdg),
                _ => {
                    let project = name.strip_suffix(".yaml")?.parse().ok()?;
                    Some(Self::Layer(Layer::Settings(project)))
                }
            },
            Self::Project(project) => {
                (name == "local.yaml").then(|| Self::Layer(Layer::Local(project.clone())))
            }
            Self::Templates => Template::is_name(name).then(|| Self::Template(name.into())),
            Self::Xdg => name.parse().ok().map(Self::Project),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        match self {
            Self::Layer(_) | Self::Template(_) => false,
            Self::Layers | Self::Project(_) | Self::Templates | Self::Xdg => true,
        }
    }

    /// Returns the path from the root.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Layer(Layer::Env) => ".oneiric/secrets.env".into(),
            Self::Layer(Layer::Json) => ".oneiric/secrets.json".into(),
            Self::Layer(Layer::Local(project)) => format!(".oneiric/xdg/{project}/local.yaml"),
            Self::Layer(Layer::Settings(project)) => format!(".oneiric/{project}.yaml"),
            Self::Layers => ".oneiric".into(),
            Self::Project(project) => format!(".oneiric/xdg/{project}"),
            Self::Template(name) => format!(".templates/{name}"),
            Self::Templates => ".templates".into(),
            Self::Xdg => ".oneiric/xdg".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Set {
        let template = Template::new("x", Default::default(), None, Vec::new()).unwrap();
        let projects = vec!["app".parse().unwrap(), "b.c".parse().unwrap()];
        Set {
            templates: [("nginx.conf".into(), template)].into(),
            oneiric: Some(Oneiric { dir: None, projects }),
        }
    }

    #[test]
    fn every_place_that_is_listed_is_found_by_its_path_and_is_there() {
        let set = set();
        let mut rest = vec![Place::Layers, Place::Templates];
        let mut paths = Vec::new();
        while let Some(place) = rest.pop() {
            assert!(set.has(&place), "{place:?}");
            let path = place.path();
            let mut segments = path.split('/');
            let top = Place::top(segments.next().unwrap()).unwrap();
            let found = segments.fold(top, |place, segment| place.child(segment).unwrap());
            assert_eq!(found, place);
            assert_eq!(place.is_directory(), !set.children(&place).is_empty(), "{path}");
            rest.extend(set.children(&place).into_iter().map(|(_, place)| place));
            paths.push(path);
        }
        paths.sort();
        let expected = [
            ".oneiric",
            ".oneiric/app.yaml",
            ".oneiric/b.c.yaml",
            ".oneiric/secrets.env",
            ".oneiric/secrets.json",
            ".oneiric/xdg",
            ".oneiric/xdg/app",
            ".oneiric/xdg/app/local.yaml",
            ".oneiric/xdg/b.c",
            ".oneiric/xdg/b.c/local.yaml",
            ".templates",
            ".templates/nginx.conf",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn what_the_configuration_does_not_name_is_not_there() {
        let set = set();
        for path in [Place::Template("x".into()), Place::Project("other".parse().unwrap())] {
            assert!(!set.has(&path), "{path:?}");
        }
        assert!(!Set::default().has(&Place::Layers) && Set::default().has(&Place::Templates));
        for bad in ["..", ".x", "a/b", "", "a b", "\u{e9}"] {
            assert_eq!(Place::Templates.child(bad), None, "{bad:?}");
            assert_eq!(Place::Layers.child(bad), None, "{bad:?}");
            assert_eq!(Place::Xdg.child(bad), None, "{bad:?}");
        }
    }
}
