//! From evidence to a number between 0 and 1. `docs/SCANNING.md` has the same formula in words.

use super::file_kind::{FileKind, Role};
use super::severity::Confidence;

/// What speaks for a candidate that no filter has taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    pub strength: Strength,
    /// A check digit or a structure is right.
    pub checked: bool,
    /// Bits a byte.
    pub entropy: f64,
    /// What the rule asks for at least.
    pub floor: f64,
}

/// How much the shape says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strength {
    /// A password by the name that it is assigned to.
    Assigned {
        /// Letters and others mixed, as a word has not.
        mixed: bool,
        /// Quoted, or in a file of settings.
        literal: bool,
    },
    /// A format of its own.
    Format,
    /// A shape near a keyword, so many bytes before it.
    Keyword { distance: usize },
    /// Random letters by the name that they are assigned to.
    Random,
}

impl Evidence {
    /// What a right check digit or structure gives, and nothing else reaches.
    pub(super) const CHECKED: Confidence = Confidence::hundredths(99);
    const UNCHECKED: f64 = 0.95;

    pub(super) fn confidence(&self, kind: FileKind) -> Confidence {
        if self.checked {
            return Self::CHECKED;
        }
        let above = ((self.entropy - self.floor) / 1.5).clamp(0.0, 1.0);
        let (base, spread) = match self.strength {
            Strength::Assigned { mixed, literal } => {
                (0.40 + if mixed { 0.15 } else { -0.15 } + if literal { 0.10 } else { 0.0 }, 0.10)
            }
            Strength::Format => (0.80, 0.10),
            Strength::Keyword { distance } => {
                let near = u32::try_from(distance.min(64)).map_or(0.0, f64::from);
                (0.45 + 0.20 * (1.0 - near / 64.0), 0.15)
            }
            Strength::Random => (0.50, 0.20),
        };
        let weak = self.strength != Strength::Format;
        let file = match kind.role {
            Role::Config => 0.10,
            Role::Code | Role::Unknown => 0.0,
            Role::Document => -0.05,
            Role::Generated => {
                if weak {
                    -0.40
                } else {
                    -0.10
                }
            }
            Role::Language => {
                if weak {
                    -0.30
                } else {
                    0.0
                }
            }
        };
        let test = match (kind.is_test, weak) {
            (false, _) => 0.0,
            (true, false) => -0.05,
            (true, true) => -0.15,
        };
        Confidence::new((base + spread * above + file + test).min(Self::UNCHECKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confidence(strength: Strength, kind: FileKind) -> f64 {
        Evidence { strength, checked: false, entropy: 3.5, floor: 3.0 }.confidence(kind).value()
    }

    #[test]
    fn a_format_is_worth_more_than_a_keyword_and_a_near_keyword_more_than_a_far_one() {
        let kind = FileKind::default();
        let near = confidence(Strength::Keyword { distance: 1 }, kind);
        assert!(confidence(Strength::Format, kind) > near);
        assert!(near > confidence(Strength::Keyword { distance: 60 }, kind));
    }

    #[test]
    fn tests_and_generated_files_take_from_a_weak_shape_and_a_check_digit_decides() {
        let test = FileKind { is_test: true, ..FileKind::default() };
        let lock = FileKind { role: Role::Generated, is_test: false };
        let plain = confidence(Strength::Random, FileKind::default());
        assert!(confidence(Strength::Random, test) < plain);
        assert!(confidence(Strength::Random, lock) < 0.5);
        let checked =
            Evidence { strength: Strength::Random, checked: true, entropy: 0.0, floor: 9.0 };
        assert!(checked.confidence(lock).value() > 0.9);
    }
}
