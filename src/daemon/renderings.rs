//! The files below `.templates` and `.oneiric`, as the configuration names them.

use std::collections::BTreeMap;

use super::DaemonError;
use super::config::{Config, TemplateLayer};
use super::trust;
use crate::fs::{Oneiric, Set, Template};
use crate::inject::oneiric::Project;
use crate::inject::template::{Language, Pattern};

/// Reads the templates that the configuration names. One that is none, or that others could change,
/// is refused.
pub fn read_renderings(config: &Config) -> Result<Set, DaemonError> {
    let mut set = Set::default();
    for TemplateLayer { name, file, dir, plain, patterns } in &config.templates {
        let path = &file.0;
        let language = if *plain { Language::Plain } else { Language::Jinja };
        let patterns = patterns.iter();
        let patterns = patterns
            .map(|(text, name)| Pattern { text: text.clone(), name: name.clone() })
            .collect();
        let template = Template::new(&trust::read(path)?, language, dir.clone(), patterns)
            .map_err(|source| DaemonError::Template { path: path.clone(), source })?;
        if set.templates.insert(name.0.as_str().into(), template).is_some() {
            return Err(DaemonError::TemplateTwice(name.0.clone()));
        }
    }
    set.oneiric = config.oneiric.as_ref().map(|own| {
        let projects: BTreeMap<&str, &Project> =
            own.projects.iter().map(|project| (project.0.as_str(), &project.0)).collect();
        Oneiric { dir: own.dir.clone(), projects: projects.into_values().cloned().collect() }
    });
    Ok(set)
}
