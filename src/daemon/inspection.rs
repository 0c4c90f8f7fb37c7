//! `scan_on_write`: what is written to secretfs and is no secret must not hold one.
//!
//! Metadata is refused as it is set, configuration as it is reloaded. A start takes what it finds: a rule that comes
//! with a new version must not keep a mount away. `secretfs doctor` tells.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::config::Config;
use crate::broker::{Broker, Inspect};
use crate::scan::Inspector;

/// The rules take a moment and some memory: they are made once, when something is written for the first time.
static INSPECTOR: LazyLock<Arc<Inspector>> = LazyLock::new(Arc::default);

/// Has the broker refuse metadata, where the configuration wants that.
pub(super) fn begin(config: &Config, broker: &Broker) {
    if config.scan_on_write {
        broker.inspect_with(Box::new(Metadata(Arc::clone(&INSPECTOR))));
    }
}

/// Returns what is wrong with the files of a configuration.
pub fn files(config: &Config) -> Vec<String> {
    let files = [
        &config.file,
        &config.policy,
        &config.rotation,
        &config.anomalies,
        &config.injections,
        &config.alerts,
    ];
    let templates = config.templates.iter().map(|template| template.file.0.as_path());
    if config.scan_on_write {
        files.into_iter().map(PathBuf::as_path).chain(templates).filter_map(objection).collect()
    } else {
        Vec::new()
    }
}

fn objection(file: &Path) -> Option<String> {
    // One that cannot be read is somebody else's to complain of.
    let text = std::fs::read_to_string(file).ok()?;
    let why = judge(&INSPECTOR, &file.to_string_lossy(), &text).err()?;
    Some(format!("{}: {why}", file.display()))
}

struct Metadata(Arc<Inspector>);

impl Inspect for Metadata {
    fn inspect(&self, what: &str, text: &str) -> Result<(), String> {
        judge(&self.0, what, text).inspect_err(|why| tracing::warn!(what, "refused: {why}"))
    }
}

/// Without rules nothing is known to be harmless.
fn judge(inspector: &Inspector, name: &str, text: &str) -> Result<(), String> {
    match inspector.inspect(name, text) {
        Ok(None) => Ok(()),
        Ok(Some(objection)) => Err(objection.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
