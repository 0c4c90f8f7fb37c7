//! Changes the password of a PostgreSQL role.
//!
//! The server is sent a SCRAM verifier, never the password itself: statements may be logged. Each change
//! holds a lock of the server's for the user's name until it is committed, so that a change whose sender
//! was killed is over before another one, such as its own undoing, begins.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use postgres_protocol::password::scram_sha_256;

use super::{Address, Postgresql};
use crate::effect::EffectError;
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::stream::{Stream, lost};
use crate::system::SecretBytes;

const PORT: u16 = 5432;
/// Replies that are longer are not what we have asked for.
const MAX_REPLY_BYTES: usize = 1 << 20;

impl Postgresql {
    pub(super) fn set(&self, step: &Step<'_>) -> Outcome {
        let (user, password) = self.user.credential(step.new_value()?)?;
        self.change(step, user, Some(&password))?;
        Ok(format!("{user} has a new password at {}", self.address))
    }

    pub(super) fn login(&self, step: &Step<'_>) -> Outcome {
        let (user, password) = self.user.credential(step.new_value()?)?;
        let session = self.open(user, Some(&password))?;
        if !session.asked_for_password {
            return Err(EffectError::Refused(format!(
                "{} lets {user} in without a password, so nothing is proved",
                self.address
            )));
        }
        Ok(format!("{user} has logged in at {}", self.address))
    }

    pub(super) fn finish(&self, step: &Step<'_>) -> Outcome {
        let user = self.user.of_value(step.new_value()?)?;
        let Some(idle) = self.user.idle(user).filter(|_| self.lock_idle) else {
            return Ok(format!("{user} stays as it is"));
        };
        self.change(step, idle, None)?;
        Ok(format!("{idle} has no password any more at {}", self.address))
    }

    pub(super) fn undo(&self, step: &Step<'_>) -> Outcome {
        let Some((user, password)) = self.user.before(step.values)? else {
            return Ok("nothing was set".to_owned());
        };
        self.change(step, user, password.as_ref())?;
        Ok(match password {
            Some(_) => format!("{user} has its password back at {}", self.address),
            None => format!("{user} has no password at {}", self.address),
        })
    }

    fn change(
        &self,
        step: &Step<'_>,
        user: &str,
        password: Option<&SecretBytes>,
    ) -> Result<(), EffectError> {
        let (admin, admin_password) = step.admin(self.admin_user.as_deref())?;
        let admin = admin.ok_or_else(|| invalid("admin_user is needed"))?;
        let mut session = self.open(&admin, admin_password.as_ref())?;
        let lock = escape_literal(&format!("secretfs {user}"));
        let verifier = password.map_or_else(
            || "NULL".to_owned(),
            |password| escape_literal(&scram_sha_256(password.expose())),
        );
        session.run(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext({lock})); ALTER ROLE {} PASSWORD {verifier}",
            escape_identifier(user)
        ))?;
        session.run("COMMIT")
    }

    fn open(&self, user: &str, password: Option<&SecretBytes>) -> Result<Session, EffectError> {
        let mut stream = Stream::connect(&self.place(), PORT)?;
        if let Some(tls) = &self.tls {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            stream.write_all(&request).map_err(|error| lost(&error))?;
            let mut answer = [0];
            stream.read_exact(&mut answer).map_err(|error| lost(&error))?;
            if answer != *b"S" {
                return Err(EffectError::Refused(format!("{} has no TLS", self.address)));
            }
            stream = stream.secured(&self.address, tls)?;
        }
        let mut session = Session { stream, incoming: BytesMut::new(), asked_for_password: false };
        let database = self.database.as_deref().unwrap_or("postgres");
        let parameters = [("user", user), ("database", database), ("application_name", "secretfs")];
        session.send(|out| frontend::startup_message(parameters, out))?;
        session.authenticate(user, password)?;
        session.until_ready()?;
        Ok(session)
    }

    /// Returns the address with the socket's name, which goes with its port.
    fn place(&self) -> Address {
        match &self.address {
            Address::Socket(path) if path.is_dir() => {
                Address::Socket(path.join(format!(".s.PGSQL.{PORT}")))
            }
            address @ (Address::Host { .. } | Address::Socket(_)) => address.clone(),
        }
    }
}

/// A conversation with a server.
struct Session {
    stream: Stream,
    incoming: BytesMut,
    asked_for_password: bool,
}

impl Session {
    fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), EffectError> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| invalid(&error.to_string()))?;
        self.stream.write_all(&out).map_err(|error| lost(&error))
    }

    fn receive(&mut self) -> Result<Message, EffectError> {
        loop {
            if let Some(message) =
                Message::parse(&mut self.incoming).map_err(|error| lost(&error))?
            {
                return Ok(message);
            }
            let mut chunk = [0; 4096];
            let length = self.stream.read(&mut chunk).map_err(|error| lost(&error))?;
            if length == 0 {
                return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
            }
            self.incoming.extend_from_slice(chunk.get(..length).unwrap_or_default());
            if self.incoming.len() > MAX_REPLY_BYTES {
                return Err(odd());
            }
        }
    }

    fn authenticate(
        &mut self,
        user: &str,
        password: Option<&SecretBytes>,
    ) -> Result<(), EffectError> {
        let no_password = || EffectError::Refused(format!("the server wants a password of {user}"));
        loop {
            let message = self.receive()?;
            if matches!(message, Message::AuthenticationOk) {
                return Ok(());
            }
            if let Message::ErrorResponse(error) = message {
                return Err(refusal(&error));
            }
            let password = password.ok_or_else(no_password)?.expose();
            self.asked_for_password = true;
            if matches!(message, Message::AuthenticationCleartextPassword) {
                // It would go over the network as it is, to whoever answers there.
                if matches!(self.stream, Stream::Tcp(_)) {
                    return Err(EffectError::Refused(
                        "the server wants the plain password without TLS".to_owned(),
                    ));
                }
                self.send(|out| frontend::password_message(password, out))?;
            } else if let Message::AuthenticationMd5Password(body) = message {
                let hash = md5_hash(user.as_bytes(), password, body.salt());
                self.send(|out| frontend::password_message(hash.as_bytes(), out))?;
            } else if let Message::AuthenticationSasl(body) = message {
                let knows = |mechanism: &str| Ok(mechanism == sasl::SCRAM_SHA_256);
                if !body.mechanisms().any(knows).map_err(|error| lost(&error))? {
                    return Err(odd());
                }
                self.exchange_scram(password)?;
            } else {
                return Err(odd());
            }
        }
    }

    fn exchange_scram(&mut self, password: &[u8]) -> Result<(), EffectError> {
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        self.send(|out| {
            frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), out)
        })?;
        let Message::AuthenticationSaslContinue(body) = self.receive_or_refusal()? else {
            return Err(odd());
        };
        scram.update(body.data()).map_err(|error| lost(&error))?;
        self.send(|out| frontend::sasl_response(scram.message(), out))?;
        let Message::AuthenticationSaslFinal(body) = self.receive_or_refusal()? else {
            return Err(odd());
        };
        scram.finish(body.data()).map_err(|error| lost(&error))
    }

    fn receive_or_refusal(&mut self) -> Result<Message, EffectError> {
        let message = self.receive()?;
        if let Message::ErrorResponse(error) = message {
            return Err(refusal(&error));
        }
        Ok(message)
    }

    fn run(&mut self, statement: &str) -> Result<(), EffectError> {
        self.send(|out| frontend::query(statement, out))?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<(), EffectError> {
        while !matches!(self.receive_or_refusal()?, Message::ReadyForQuery(_)) {}
        Ok(())
    }
}

/// Says what an error of the server's means, by the class of its code.
fn refusal(error: &ErrorResponseBody) -> EffectError {
    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = error.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    let why = format!("{message} ({code})");
    // Connections, resources, and an operator's intervention such as a shutdown.
    if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) {
        return EffectError::Unreachable(why);
    }
    EffectError::Refused(why)
}

fn odd() -> EffectError {
    EffectError::Refused("the server speaks another protocol than expected".to_owned())
}
