//! Changes the password of a MariaDB user.
//!
//! The server is sent a hash, never the password itself. A single user has two passwords between set and
//! finish, which MariaDB can and MySQL cannot in this way. Each change holds a lock of the server's for the
//! user's name, so that one whose sender was killed is over before another one begins.

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use super::{Mysql, Users};
use crate::effect::EffectError;
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::stream::Stream;
use crate::system::SecretBytes;

mod session;

use session::Session;

const PORT: u16 = 3306;
/// A hash that no password has.
const NO_PASSWORD: &str = "invalid";

impl Mysql {
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        let (user, password) = self.user.credential(step.new_value()?)?;
        let mut hashes = vec![hash(&password)];
        if let (Users::One(_), Some(current)) = (&self.user, &step.values.current) {
            hashes.push(hash(&self.user.credential(current)?.1));
        }
        self.change(step, user, &hashes)?;
        Ok(format!("{user} has a new password at {}", self.address))
    }

    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        let (user, password) = self.user.credential(step.new_value()?)?;
        if !self.open(user, Some(&password))?.has_shown_password() {
            return Err(EffectError::Refused(format!(
                "{} lets {user} in without a password, so nothing is proved",
                self.address
            )));
        }
        Ok(format!("{user} has logged in at {}", self.address))
    }

    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        let (user, password) = self.user.credential(step.new_value()?)?;
        match self.user.idle(user) {
            None => {
                self.change(step, user, &[hash(&password)])?;
                Ok(format!("{user} has its new password alone at {}", self.address))
            }
            Some(idle) if self.lock_idle => {
                self.change(step, idle, &[NO_PASSWORD.to_owned()])?;
                Ok(format!("{idle} has no password any more at {}", self.address))
            }
            Some(_) => Ok(format!("{user} stays as it is")),
        }
    }

    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        let Some((user, password)) = self.user.before(step.values)? else {
            return Ok("nothing was set".to_owned());
        };
        let hash = password.as_ref().map_or_else(|| NO_PASSWORD.to_owned(), hash);
        self.change(step, user, &[hash])?;
        Ok(match password {
            Some(_) => format!("{user} has its password back at {}", self.address),
            None => format!("{user} has no password at {}", self.address),
        })
    }

    fn change(&self, step: &Step<'_>, user: &str, hashes: &[String]) -> Result<(), EffectError> {
        let (admin, password) = step.admin(self.admin_user.as_deref())?;
        let admin = admin.ok_or_else(|| invalid("admin_user is needed"))?;
        let mut session = self.open(&admin, password.as_ref())?;
        if !session.is_mariadb() {
            return Err(invalid(&format!("{} is no MariaDB server", self.address)));
        }
        let plugins: Vec<String> =
            hashes.iter().map(|hash| format!("mysql_native_password USING '{hash}'")).collect();
        // Names of locks have at most 64 characters.
        let name = hex(&Sha1::digest(format!("{user}@{}", self.host)));
        session.run(&format!("DO GET_LOCK('secretfs {name}', 3600)"))?;
        session.run(&format!(
            "ALTER USER {}@{} IDENTIFIED VIA {}",
            identifier(user),
            identifier(&self.host),
            plugins.join(" OR ")
        ))
    }

    fn open(&self, user: &str, password: Option<&SecretBytes>) -> Result<Session, EffectError> {
        let stream = Stream::connect(&self.address, PORT)?;
        Session::open(stream, self.tls.as_ref().map(|tls| (&self.address, tls)), user, password)
    }
}

/// Quotes a name in a way that no mode of the server's changes.
fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Returns what the server keeps of a password.
fn hash(password: &SecretBytes) -> String {
    let once: Zeroizing<[u8; 20]> = Zeroizing::new(Sha1::digest(password.expose()).into());
    format!("*{}", hex(&Sha1::digest(*once)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_the_server_computes() {
        let password = SecretBytes::copy_from(b"password").unwrap();
        assert_eq!(hash(&password), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
    }

    #[test]
    fn a_name_cannot_end_its_quotes() {
        assert_eq!(identifier("a`@`%"), "`a``@``%`");
    }
}
