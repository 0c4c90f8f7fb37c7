//! The examples of the rules: what each must find, and what it must not.

use super::candidate::Outcome;
use super::engine::Engine;
use super::file_kind::{FileKind, Role};
use super::severity::Confidence;

/// Examples count as lines of settings; from there on something is a finding.
const THRESHOLD: f64 = 0.5;

impl Engine {
    /// Runs each rule over its examples, with all others in force. Returns what is wrong, a line each; an
    /// example is named by its number, because it is made to look like a secret.
    pub fn test_rules(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let mut fault = |why: String| faults.push(format!("{}: {why}", rule.id));
            if let Err(why) = rule.verify() {
                fault(why);
            }
            for (number, example) in rule.positive.iter().enumerate() {
                if !self.finds(index, example) {
                    fault(format!(
                        "positive example {} is not found{}",
                        number + 1,
                        self.instead(example)
                    ));
                }
            }
            for (number, example) in rule.negative.iter().enumerate() {
                if self.finds(index, example) {
                    fault(format!("negative example {} is found", number + 1));
                }
            }
            if rule.positive.is_empty() || rule.negative.is_empty() {
                fault("it needs a positive and a negative example".to_owned());
            }
        }
        faults
    }

    fn finds(&self, index: usize, example: &str) -> bool {
        let is_found = |outcome: Outcome| match outcome {
            Outcome::Filtered(_) => false,
            Outcome::Found(confidence) => confidence >= Confidence::new(THRESHOLD),
        };
        let kind = FileKind { role: Role::Config, is_test: false };
        let matches = self.matches(example.as_bytes(), kind);
        let mut candidates = matches.iter().map(|ranked| &ranked.candidate);
        candidates.any(|one| one.rule == index && is_found(one.outcome))
    }

    /// Says what was found in its place.
    fn instead(&self, example: &str) -> String {
        let kind = FileKind { role: Role::Config, is_test: false };
        let said = self.scan(example.as_bytes(), kind).into_iter().filter_map(|one| {
            let id = &self.rules.get(one.rule)?.id;
            Some(match one.outcome {
                Outcome::Filtered(reason) => format!("{id}: {}", reason.as_str()),
                Outcome::Found(confidence) => format!("{id} at {confidence}"),
            })
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use crate::scan::{Engine, RuleSet};

    #[test]
    fn every_rule_finds_its_positive_examples_and_not_its_negative_ones() {
        let engine = Engine::new(RuleSet::built_in().unwrap()).unwrap();
        assert!(engine.rules.len() >= 200);
        let faults = engine.test_rules();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }

    #[test]
    fn an_example_that_does_not_fit_is_seen() {
        let mut set = RuleSet::built_in().unwrap();
        let wrong = "[[rule]]\nid = 'x'\ndescription = 'x'\ntype = 'api_key'\nseverity = 'low'\nkeywords = ['xyz_']\n\
                     regex = 'xyz_[a-z0-9]{20}'\npositive = ['xyz_short']\nnegative = ['xyz_8fk2mq9vl4nr8wtz1pxc']";
        set.add("wrong", wrong).unwrap();
        let faults = Engine::new(set).unwrap().test_rules();
        assert_eq!(faults.iter().filter(|fault| fault.starts_with("x: ")).count(), 2);
    }
}
