//! The controls of the frameworks, out of `controls.toml`, and the limits that checks go by.

use serde::{Deserialize, Serialize};

use crate::model::TextError;

const TABLE: &str = include_str!("controls.toml");

/// Whose controls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framework {
    Hipaa,
    Pci,
    Soc2,
}

/// A control, and which checks evidence it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) checks: Vec<String>,
}

/// From where on a check fails.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The age of a value that has no schedule of its own.
    pub value_days: i64,
    pub epoch_days: i64,
    pub root_days: i64,
    /// How many may read one secret.
    pub readers: usize,
    pub admins: usize,
    /// How long a rule, or a secret, may lie unused.
    pub unused_days: i64,
    /// How many accesses of a hundred may be refused.
    pub refused_percent: u64,
    pub retention_days: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_days: 365,
            epoch_days: 365,
            root_days: 730,
            readers: 10,
            admins: 5,
            unused_days: 90,
            refused_percent: 10,
            retention_days: 365,
        }
    }
}

impl Limits {
    /// Reads a file of limits; what it does not say is as built in.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        toml::from_str(text).map_err(|error| {
            TextError::at(text, error.span().map_or(0, |span| span.start), error.message())
        })
    }
}

impl Framework {
    /// Every framework, in the order of the alphabet.
    pub const ALL: [Self; 3] = [Self::Hipaa, Self::Pci, Self::Soc2];

    /// Returns the word for it on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hipaa => "hipaa",
            Self::Pci => "pci",
            Self::Soc2 => "soc2",
        }
    }

    /// Returns its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Hipaa => "HIPAA Security Rule, 45 CFR 164.312",
            Self::Pci => "PCI DSS 4.0",
            Self::Soc2 => "SOC 2, Trust Services Criteria",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    hipaa: Vec<Control>,
    pci: Vec<Control>,
    soc2: Vec<Control>,
}

/// Returns the controls of a framework, in its order.
#[expect(clippy::expect_used, reason = "the table is ours, and a test parses it")]
pub(super) fn of(framework: Framework) -> Vec<Control> {
    let table: Table = toml::from_str(TABLE).expect("the table of controls is well formed");
    match framework {
        Framework::Hipaa => table.hipaa,
        Framework::Pci => table.pci,
        Framework::Soc2 => table.soc2,
    }
}
