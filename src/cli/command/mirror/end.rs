//! The two ends of a copy, as they are named on the command line: the store, or a backend of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::backend;
use crate::backend::{Backend, Settings};
use crate::cli::Context;
use crate::cli::args::Place;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::mirror::{Local, Remote, Side};
use crate::daemon::config::{Config, Layer};
use crate::model::SecretName;

/// The word for the store.
pub(super) const LOCAL: &str = "local";

/// Where is copied from and to.
pub(super) struct Ends {
    pub(super) from: End,
    pub(super) to: End,
    /// Where the store is mounted, if it is one of them.
    mountpoint: Option<PathBuf>,
    /// Directories of the store whose secrets are the destination's own.
    routed: Vec<SecretName>,
}

/// One of them.
pub(super) struct End {
    place: Place,
    which: Which,
}

enum Which {
    Service(Arc<dyn Backend>),
    Store(Option<SecretName>),
}

impl Ends {
    /// Finds both. Errors: what the configuration does not have, and one end that lies in the other.
    pub(super) fn of(
        context: &Context,
        (from, to): (&Place, &Place),
        system: bool,
    ) -> Result<Self, Failure> {
        let (sources, config) = context.config(system, Layer::default())?;
        #[allow(unused_variables, reason = "a build without any service opens none")]
        let find = |place: &Place| -> Result<End, Failure> {
            if place.side == LOCAL {
                let parsed = place.below.as_deref().map(str::parse::<SecretName>).transpose();
                let below = parsed.map_err(|err| {
                    Failure::new(
                        Kind::Config,
                        place.below.as_deref().unwrap_or(""),
                        err.to_string(),
                    )
                })?;
                return Ok(End { place: place.clone(), which: Which::Store(below) });
            }
            let (name, settings) = named(&config, &place.side)?;
            let below = place.below.as_deref().unwrap_or_default();
            let opened = backend::open(&sources, name, &settings.clone().below(below))?;
            let place = Place { side: name.to_owned(), ..place.clone() };
            Ok(End { place, which: Which::Service(opened) })
        };
        let (from, to) = (find(from)?, find(to)?);
        if from.place.overlaps(&to.place) {
            let why = "both are the same place, or one is within the other";
            return Err(Failure::new(Kind::Config, format!("{from} to {to}"), why));
        }
        let is_local = [&from, &to].iter().any(|end| matches!(end.which, Which::Store(_)));
        let mountpoint = if is_local { Some(context.mountpoint()?) } else { None };
        let routed = config.routes.iter().filter(|route| route.backend == to.place.side);
        let routed = routed.map(|route| route.path.clone()).collect();
        Ok(Self { from, to, mountpoint, routed })
    }

    /// Opens both for one round: nothing of the mount is held between two of them, or it could not be unmounted.
    pub(super) fn open(&self) -> Result<[Box<dyn Side>; 2], Failure> {
        Ok([self.open_end(&self.from, &self.routed)?, self.open_end(&self.to, &[])?])
    }

    fn open_end(&self, end: &End, without: &[SecretName]) -> Result<Box<dyn Side>, Failure> {
        Ok(match &end.which {
            Which::Store(directory) => {
                let client = Client::find(self.mountpoint.as_deref(), None)?;
                let local = Local::new(client, directory.clone(), without.to_vec());
                local.tidy();
                Box::new(local)
            }
            Which::Service(backend) => {
                let remote = Remote::new(Arc::clone(backend)).map_err(|trouble| {
                    Failure::new(Kind::BackendConnection, &end.place.side, trouble.to_string())
                })?;
                Box::new(remote)
            }
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.side)?;
        self.place.below.iter().try_for_each(|below| write!(f, ":{below}"))
    }
}

/// Finds a backend by its name or, where the configuration has one of it alone, by its kind.
fn named<'a>(config: &'a Config, word: &str) -> Result<(&'a str, &'a Settings), Failure> {
    if let Some((name, settings)) = config.backends.get_key_value(word) {
        return Ok((name, settings));
    }
    let is_kind = |settings: &Settings| settings.kind().split('_').next() == Some(word);
    let of_kind: Vec<(&str, &Settings)> = config
        .backends
        .iter()
        .filter(|(_, settings)| is_kind(settings))
        .map(|(name, settings)| (name.as_str(), settings))
        .collect();
    match of_kind.as_slice() {
        [] => Err(backend::unknown(config, word)),
        [only] => Ok(*only),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            let why = format!("the configuration has {} of this kind", several.len());
            let hint = format!("name one of them: {}", names.join(", "));
            Err(Failure::new(Kind::Config, word, why).hint(hint))
        }
    }
}
