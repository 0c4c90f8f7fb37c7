//! How bad a leak is, and how sure we are that it is one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a leaked secret of a kind opens, from little to everything.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// Every severity, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Low => "low",
            Self::Medium => "medium",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no severity: use one of critical, high, medium, low")
        })
    }
}

/// How sure we are, from 0 to 1, in hundredths.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confidence(u8);

impl Confidence {
    /// Takes hundredths.
    pub(super) const fn hundredths(hundredths: u8) -> Self {
        Self(hundredths)
    }

    /// Rounds to hundredths and keeps within 0 and 1.
    pub fn new(value: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 100; what is no number becomes 0"
        )]
        let hundredths = (value.clamp(0.0, 1.0) * 100.0).round() as u8;
        Self(hundredths)
    }

    /// Returns the number between 0 and 1.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.value())
    }
}

impl FromStr for Confidence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
        if (0.0..=1.0).contains(&value) {
            Ok(Self::new(value))
        } else {
            Err("a confidence is between 0 and 1".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_by_weight_and_parse_back() {
        assert!(Severity::Critical > Severity::High && Severity::Medium > Severity::Low);
        for severity in Severity::ALL {
            assert_eq!(severity.as_str().parse(), Ok(severity));
        }
        assert!("urgent".parse::<Severity>().is_err());
    }

    #[test]
    fn a_confidence_stays_between_zero_and_one() {
        assert_eq!(Confidence::new(7.0).to_string(), "1.00");
        assert_eq!(Confidence::new(f64::NAN).to_string(), "0.00");
        assert_eq!("0.35".parse(), Ok(Confidence::new(0.35)));
        assert!("1.5".parse::<Confidence>().is_err());
    }
}
