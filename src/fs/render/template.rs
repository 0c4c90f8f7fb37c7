//! A registered template, and what it becomes for whoever opens it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::MAX_BYTES;
use super::lookup::{Anything, Known};
use crate::broker::Broker;
use crate::fs::error::{FsError, Result};
use crate::inject::template::{Draft, Language, Pattern};
use crate::inject::{Lookup, TemplateError};
use crate::model::{Caller, Level, SecretName};
use crate::system::SecretBytes;

/// A template that has been found to be one.
#[derive(Debug)]
pub struct Template {
    source: Box<str>,
    language: Language,
    /// Below which placeholders are looked up by their variable.
    dir: Option<SecretName>,
    patterns: Vec<Pattern>,
}

impl Template {
    /// Checks everything but whether the secrets are there, which depends on who asks. Errors name the
    /// line and the column.
    pub fn new(
        source: &str,
        language: Language,
        dir: Option<SecretName>,
        patterns: Vec<Pattern>,
    ) -> std::result::Result<Self, TemplateError> {
        let anything: Arc<dyn Lookup> = Arc::new(Anything);
        Draft::of(source, language, &patterns, anything)?;
        Ok(Self { source: source.into(), language, dir, patterns })
    }

    /// Tells whether a template can have this name: that of a secret, in one segment.
    pub fn is_name(text: &str) -> bool {
        !text.contains('/') && text.parse::<SecretName>().is_ok()
    }
}

/// Fills a template for a caller, with the caller's own rights; `purpose` is for the records. What it
/// is made of is noted before it is read, so that no change is missed.
pub(in crate::fs) fn text(
    broker: &Broker,
    caller: &Caller,
    (template, note): (&Template, impl FnOnce(BTreeSet<SecretName>)),
    purpose: &str,
) -> Result<SecretBytes> {
    let known = Arc::new(Known::new(broker.clone(), caller.clone(), template.dir.clone()));
    let lookup: Arc<dyn Lookup> = Arc::<Known>::clone(&known);
    let draft = match Draft::of(&template.source, template.language, &template.patterns, lookup) {
        Ok(draft) => draft,
        Err(error) => {
            note(BTreeSet::new());
            return Err(match (known.failure(), error) {
                (Some(failure), _) => failure.into(),
                (None, TemplateError::Unknown { variable, .. }) => known.unknown(&variable).into(),
                (None, error) => refused(purpose, error),
            });
        }
    };
    let names = draft.names();
    // Who may not read a secret is not to be told when it changes.
    let may_read = |name: &&SecretName| broker.levels(caller, name).allow(Level::Read);
    note(names.iter().filter(may_read).cloned().collect());
    let values = broker.read_set(caller, &names, (purpose, MAX_BYTES))?;
    let max_bytes = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    draft.fill_within(max_bytes, &|name| values.get(name)).map_err(|error| refused(purpose, error))
}

/// Says in the daemon's log what the errno cannot.
fn refused(purpose: &str, error: TemplateError) -> FsError {
    tracing::warn!(%error, "not rendered {purpose}");
    match error {
        TemplateError::Memory(error) => FsError::Memory(error),
        TemplateError::NoRandom => FsError::Fault,
        TemplateError::TooLarge => FsError::TooBig,
        TemplateError::Filter { .. }
        | TemplateError::NoSuchText(_)
        | TemplateError::Source { .. }
        | TemplateError::TakenApart
        | TemplateError::Unknown { .. } => FsError::Invalid,
    }
}
