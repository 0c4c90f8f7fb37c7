//! The commands of `.control/elevate`: a code, `enrol`, `enrol SEED CODE`, `drop`, or `forget UID`.

use serde_json::{Value, json};

use super::{Daemon, Result};
use crate::broker::BrokerError;
use crate::crypto::{Code, Seed};
use crate::model::{Caller, Uid};
use crate::system::SecretBytes;

/// A command. The seed in it is read from locked memory into locked memory.
#[derive(Debug)]
enum Command {
    Code(Code),
    Drop,
    /// Whether a seed would be taken, before one is shown to anybody.
    MayEnrol,
    Enrol(Seed, Code),
    Forget(Uid),
}

impl Daemon {
    pub(super) fn run_elevate(&self, caller: &Caller, text: &SecretBytes) -> Result<Value> {
        let broker = self.broker();
        match Command::parse(text.expose())? {
            Command::Code(code) => {
                let until = broker.elevate(caller, code)?;
                Ok(json!({ "elevated": true, "until": until.to_string() }))
            }
            Command::Drop => {
                broker.end_elevation(caller);
                Ok(json!({ "elevated": false }))
            }
            Command::MayEnrol => {
                broker.admit_enrolment(caller)?;
                Ok(json!({ "enrolled": false, "uid": caller.uid }))
            }
            Command::Enrol(seed, code) => {
                broker.enrol(caller, seed, code)?;
                Ok(json!({ "enrolled": true, "uid": caller.uid }))
            }
            Command::Forget(uid) => {
                broker.forget_seed(caller, uid)?;
                Ok(json!({ "enrolled": false, "uid": uid }))
            }
        }
    }
}

impl Command {
    /// Parses a command. The error quotes nothing of it.
    fn parse(text: &[u8]) -> Result<Self> {
        let invalid = |why: &str| BrokerError::Invalid(why.to_owned());
        let code = |text| Code::parse(text).ok_or_else(|| invalid("a code has six digits"));
        let words: Vec<&[u8]> =
            text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [b"drop"] => Ok(Self::Drop),
            [b"enrol"] => Ok(Self::MayEnrol),
            [b"enrol", seed, given] => {
                let seed = Seed::from_base32(seed).map_err(|err| invalid(&err.to_string()))?;
                Ok(Self::Enrol(seed, code(given)?))
            }
            [b"forget", uid] => {
                let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok());
                Ok(Self::Forget(Uid(uid.ok_or_else(|| invalid("which uid, by its number?"))?)))
            }
            [given] => Ok(Self::Code(code(given)?)),
            _ => Err(invalid("CODE, or: enrol [SEED CODE], drop, forget UID")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn each_command_is_known_by_its_words() {
        let parse = |text: &str| Command::parse(text.as_bytes());
        assert!(matches!(parse("123456\n"), Ok(Command::Code(_))));
        assert!(matches!(parse("drop"), Ok(Command::Drop)));
        assert!(matches!(parse("forget 1000"), Ok(Command::Forget(Uid(1000)))));
        assert!(matches!(parse("enrol"), Ok(Command::MayEnrol)));
        assert!(matches!(parse(&format!("enrol {SEED} 123456")), Ok(Command::Enrol(..))));
        for bad in ["", "12345", "forget ada", "enrol 123456", "enrol x 123456", "a b c d"] {
            assert!(matches!(parse(bad), Err(BrokerError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn no_fault_and_no_debug_quotes_a_seed_or_a_code() {
        let command = Command::parse(format!("enrol {SEED} 123456").as_bytes()).unwrap();
        assert!(!format!("{command:?}").contains(SEED));
        let fault = Command::parse(format!("enrol {SEED} 12345x").as_bytes()).unwrap_err();
        let shown = format!("{fault:?} {fault}");
        assert!(!shown.contains(SEED) && !shown.contains("12345x"), "{shown}");
    }
}
