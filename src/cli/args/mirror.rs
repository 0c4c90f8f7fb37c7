//! The grammar of `export`, `sync`, and of `import` from a service.

use std::convert::Infallible;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;

use super::{ImportForm, System, parse_place};
use crate::cli::client::complete_name;
use crate::model::SecretName;

/// How secrets are copied from one side to another.
#[derive(Args, Clone, Debug)]
pub(crate) struct Copying {
    #[command(flatten)]
    pub system: System,
    /// Does not ask, at a terminal, whether the plan should be carried out.
    #[arg(long)]
    pub yes: bool,
    /// How many secrets are copied at the same time; 8 if nothing is said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub at_once: Option<u8>,
}

impl Copying {
    /// Whether anything of it was said.
    pub(crate) fn is_given(&self) -> bool {
        self.system.system || self.yes || self.at_once.is_some()
    }
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The service: a table [backend.NAME] of the configuration; or aws, azure or vault, where it has one of that kind.
    #[arg(value_name = "TO")]
    pub to: String,
    /// Copies what is below this directory, and leaves it out of the names there.
    #[arg(long, value_name = "DIR", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub dir: Option<SecretName>,
    /// Put before the names there, as a directory.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Makes a new version of a secret that has a value there which the store never had.
    #[arg(long)]
    pub replace: bool,
    /// Shows the plan, and changes nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub copying: Copying,
}

#[derive(Args, Debug)]
pub(crate) struct Sync {
    /// What is copied: `local`, or a service as in `export`; with :DIR after it, what is below that.
    #[arg(value_name = "FROM")]
    pub from: Place,
    /// Where it is copied to.
    #[arg(value_name = "TO")]
    pub to: Place,
    /// Makes a new version of a secret that has a value there which FROM never had.
    #[arg(long)]
    pub replace: bool,
    /// Shows the plan, and changes nothing.
    #[arg(long, conflicts_with = "watch")]
    pub dry_run: bool,
    /// Stays, and does the same again and again; SIGHUP begins the next round at once, SIGTERM and SIGINT end it.
    #[arg(long)]
    pub watch: bool,
    /// With --watch: how long after a round the next one begins.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: u64,
    #[command(flatten)]
    pub copying: Copying,
}

/// A side and a place on it: `NAME` or `NAME:DIR`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub side: String,
    /// Without slashes at its ends; not empty.
    pub below: Option<String>,
}

impl Place {
    /// A place that may be all of it.
    pub(crate) fn new(side: &str, below: Option<&str>) -> Self {
        let below = below.map(|below| below.trim_matches('/')).filter(|below| !below.is_empty());
        Self { side: side.to_owned(), below: below.map(str::to_owned) }
    }

    /// Whether one of the two lies in the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let slashed =
            |place: &Self| place.below.as_ref().map_or(String::new(), |at| format!("{at}/"));
        let (one, two) = (slashed(self), slashed(other));
        self.side == other.side && (one.starts_with(&two) || two.starts_with(&one))
    }
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (side, below) = text.split_once(':').unzip();
        Ok(Self::new(side.unwrap_or(text), below))
    }
}

/// What `import` takes: a form of files goes before a service of that name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    File(ImportForm),
    Service(String),
}

impl FromStr for Origin {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let form = <ImportForm as ValueEnum>::from_str(text, false);
        Ok(form.map_or_else(|_| Self::Service(text.to_owned()), Self::File))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_side_and_what_is_below_a_directory_of_it() {
        for (text, side, below) in [
            ("local", "local", None),
            ("local:", "local", None),
            ("corp:app", "corp", Some("app")),
            ("corp:/app/db/", "corp", Some("app/db")),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Place { side: side.into(), below: below.map(str::to_owned) })
            );
        }
    }

    #[test]
    fn places_overlap_on_one_side_where_one_lies_in_the_other() {
        let overlap = |one: &str, two: &str| {
            let (one, two): (Place, Place) = (one.parse().unwrap(), two.parse().unwrap());
            assert_eq!(one.overlaps(&two), two.overlaps(&one));
            one.overlaps(&two)
        };
        assert!(overlap("local", "local:a") && overlap("x:a", "x:a") && overlap("x:a/b", "x:a"));
        assert!(!overlap("local", "x") && !overlap("x:a", "x:ab") && !overlap("x:a/b", "x:a/c"));
    }

    #[test]
    fn a_form_of_files_goes_before_a_service_of_that_name() {
        assert_eq!("json".parse(), Ok(Origin::File(ImportForm::Json)));
        assert_eq!("vault".parse(), Ok(Origin::Service("vault".into())));
    }
}
