//! The users whose password a target has, and which of them a value is for.

use serde::{Deserialize, Serialize};

use crate::credential;
use crate::effect::step::{invalid, shapeless};
use crate::effect::{EffectError, Values};
use crate::system::SecretBytes;

/// One user, or two that take turns: while clients use the one, the other's password is changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "OneOrTwo", into = "OneOrTwo")]
pub enum Users {
    One(String),
    Two([String; 2]),
}

impl Users {
    /// Tells whether there are two.
    pub fn alternate(&self) -> bool {
        matches!(self, Self::Two(_))
    }

    /// Returns the users.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(user) => std::slice::from_ref(user),
            Self::Two(users) => users,
        }
    }

    /// Returns the other of two.
    pub(super) fn idle(&self, busy: &str) -> Option<&str> {
        match self {
            Self::One(_) => None,
            Self::Two([first, second]) => Some(if first == busy { second } else { first }),
        }
    }

    /// Returns the one of them whom a value is for.
    pub(super) fn of_value(&self, value: &SecretBytes) -> Result<&str, EffectError> {
        match (credential::user(value), self) {
            (Some(named), users) => {
                let found = users.all().iter().find(|user| **user == named);
                found.map(String::as_str).ok_or_else(|| {
                    invalid(&format!("the target does not have the value's user {named}"))
                })
            }
            (None, Self::One(user)) => Ok(user),
            (None, Self::Two(_)) => {
                Err(invalid("users that take turns need values that name them"))
            }
        }
    }

    /// Returns whom a value is for, and the password in it.
    pub(super) fn credential(
        &self,
        value: &SecretBytes,
    ) -> Result<(&str, SecretBytes), EffectError> {
        let password = credential::password(value).map_err(shapeless)?;
        Ok((self.of_value(value)?, password))
    }

    /// Returns who gets which password back in a rollback; one whose turn it was not gets none. `None`: nothing
    /// can have been set.
    pub(super) fn before(
        &self,
        values: &Values,
    ) -> Result<Option<(&str, Option<SecretBytes>)>, EffectError> {
        let Some(new) = &values.new else { return Ok(None) };
        let user = self.of_value(new)?;
        Ok(Some(match (self, &values.current) {
            (Self::One(_), Some(current)) => {
                let (user, password) = self.credential(current)?;
                (user, Some(password))
            }
            (Self::Two(_), Some(current)) if self.of_value(current)? == user => {
                return Err(invalid("the new value is for the user of the current one"));
            }
            (Self::One(_), None) | (Self::Two(_), _) => (user, None),
        }))
    }

    /// Returns the one whose turn it is after `current`.
    pub fn next(&self, current: Option<&str>) -> &str {
        match self {
            Self::One(user) => user,
            Self::Two([first, second]) if current == Some(first) => second,
            Self::Two([first, _]) => first,
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrTwo {
    One(String),
    Two([String; 2]),
}

impl TryFrom<OneOrTwo> for Users {
    type Error = &'static str;

    fn try_from(users: OneOrTwo) -> Result<Self, Self::Error> {
        let users = match users {
            OneOrTwo::One(user) => Self::One(user),
            OneOrTwo::Two([first, second]) if first == second => {
                return Err("two users that take turns have two names");
            }
            OneOrTwo::Two(users) => Self::Two(users),
        };
        if users.all().iter().any(|user| user.is_empty() || user.contains('\0')) {
            return Err("a user's name is empty or has a zero byte");
        }
        Ok(users)
    }
}

impl From<Users> for OneOrTwo {
    fn from(users: Users) -> Self {
        match users {
            Users::One(user) => Self::One(user),
            Users::Two(users) => Self::Two(users),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Users, toml::de::Error> {
        #[derive(Deserialize)]
        struct Keys {
            #[serde(alias = "users")]
            user: Users,
        }
        toml::from_str(text).map(|Keys { user }| user)
    }

    fn value(text: &str) -> SecretBytes {
        SecretBytes::copy_from(text.as_bytes()).unwrap()
    }

    #[test]
    fn two_users_take_turns_and_one_stays() {
        let two = users("users = [\"a\", \"b\"]").unwrap();
        assert_eq!(
            [None, Some("a"), Some("b"), Some("x")].map(|now| two.next(now)),
            ["a", "b", "a", "a"]
        );
        assert_eq!((two.idle("a"), two.idle("b")), (Some("b"), Some("a")));
        let one = users("user = \"a\"").unwrap();
        assert_eq!((one.next(Some("b")), one.idle("a")), ("a", None));
        for bad in
            ["users = [\"a\", \"a\"]", "user = \"\"", "users = [\"a\"]", "user = \"a\\u0000\""]
        {
            assert!(users(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_for_the_user_that_it_names_or_the_only_one() {
        let (one, two) = (Users::One("a".into()), Users::Two(["a".into(), "b".into()]));
        assert_eq!(two.of_value(&value("redis://b:pw@host")), Ok("b"));
        assert_eq!(one.of_value(&value("pw")), Ok("a"));
        assert!(
            two.of_value(&value("pw")).is_err()
                && two.of_value(&value("redis://c:pw@host")).is_err()
        );
    }

    #[test]
    fn a_rollback_gives_one_user_its_password_and_takes_it_from_the_other_of_two() {
        let before = |users: &Users, current: Option<&str>, new: &str| {
            let values = Values { current: current.map(value), new: Some(value(new)), admin: None };
            let (user, password) = users.before(&values)?.unwrap();
            Ok::<_, EffectError>((user.to_owned(), password.map(|p| p.expose().to_vec())))
        };
        let one = Users::One("a".into());
        assert_eq!(before(&one, Some("old"), "new"), Ok(("a".into(), Some(b"old".to_vec()))));
        assert_eq!(before(&one, None, "new"), Ok(("a".into(), None)));
        let two = Users::Two(["a".into(), "b".into()]);
        let [a, b] = ["redis://a:x@h", "redis://b:y@h"];
        assert_eq!(before(&two, Some(a), b), Ok(("b".into(), None)));
        assert!(before(&two, Some(a), a).is_err(), "the one in use is never touched");
        assert!(one.before(&Values::default()).unwrap().is_none());
    }
}
