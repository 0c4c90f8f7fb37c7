//! As much of the MySQL protocol as it takes to log in and run a statement without rows.

use std::io::{Read, Write};

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

use crate::effect::step::invalid;
use crate::effect::stream::{Stream, lost};
use crate::effect::{Address, EffectError, Tls};
use crate::system::SecretBytes;

/// LONG_PASSWORD, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0008_a201;
const CAPABILITY_TLS: u32 = 0x0000_0800;
const MAX_PACKET_BYTES: u32 = 1 << 20;
const UTF8MB4: u8 = 45;
const COMMAND_QUERY: u8 = 3;
const NATIVE_PASSWORD: &str = "mysql_native_password";
const UNIX_SOCKET: &str = "unix_socket";
/// A user has so many ways to log in, and not more.
const MAX_METHODS: usize = 16;

/// A conversation with a server, logged in.
pub(super) struct Session {
    stream: Stream,
    sequence: u8,
    version: String,
    has_shown_password: bool,
}

/// What the server says of itself before anything else.
struct Greeting {
    version: String,
    capabilities: u32,
    salt: Vec<u8>,
}

impl Session {
    /// Logs in.
    pub(super) fn open(
        stream: Stream,
        tls: Option<(&Address, &Tls)>,
        user: &str,
        password: Option<&SecretBytes>,
    ) -> Result<Self, EffectError> {
        let mut session =
            Self { stream, sequence: 0, version: String::new(), has_shown_password: false };
        let greeting = Greeting::parse(&session.receive()?)?;
        session.version = greeting.version;
        let mut capabilities = CAPABILITIES;
        if let Some((address, tls)) = tls {
            capabilities |= CAPABILITY_TLS;
            if greeting.capabilities & CAPABILITY_TLS == 0 {
                return Err(EffectError::Refused(format!("{address} has no TLS")));
            }
            session.send(&preamble(capabilities))?;
            session.stream = session.stream.secured(address, tls)?;
        }
        let mut login = preamble(capabilities);
        login.extend_from_slice(user.as_bytes());
        login.push(0);
        let answer = scramble(&greeting.salt, password);
        login.push(u8::try_from(answer.len()).unwrap_or(0));
        login.extend_from_slice(&answer);
        login.extend_from_slice(NATIVE_PASSWORD.as_bytes());
        login.push(0);
        session.send(&login)?;
        session.has_shown_password = !answer.is_empty();
        session.convince(password)?;
        Ok(session)
    }

    /// Tells whether the login was by a password.
    pub(super) fn has_shown_password(&self) -> bool {
        self.has_shown_password
    }

    /// Tells whether the server is MariaDB.
    pub(super) fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// Runs a statement that returns no rows.
    pub(super) fn run(&mut self, statement: &str) -> Result<(), EffectError> {
        self.sequence = 0;
        let mut packet = vec![COMMAND_QUERY];
        packet.extend_from_slice(statement.as_bytes());
        self.send(&packet)?;
        match self.receive()?.first() {
            Some(0) => Ok(()),
            Some(_) | None => Err(odd()),
        }
    }

    /// Answers whatever the server wants to know until it lets us in.
    fn convince(&mut self, password: Option<&SecretBytes>) -> Result<(), EffectError> {
        for _ in 0..MAX_METHODS {
            let packet = self.receive()?;
            let request = match packet.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xfe, request)) => request,
                Some(_) | None => return Err(odd()),
            };
            let (method, salt) = until_zero(request)?;
            let answer = match method {
                NATIVE_PASSWORD => scramble(salt.get(..20).unwrap_or(salt), password),
                // The server asks the kernel who we are. Where a password is to be shown that does not count.
                UNIX_SOCKET => Zeroizing::default(),
                other => {
                    return Err(EffectError::Refused(format!(
                        "the server wants the method {other}, which is not there"
                    )));
                }
            };
            self.has_shown_password = !answer.is_empty();
            self.send(&answer)?;
        }
        Err(odd())
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), EffectError> {
        let length = u32::try_from(payload.len()).ok().filter(|length| *length < MAX_PACKET_BYTES);
        let [low, middle, high, _] =
            length.ok_or_else(|| invalid("the statement is too long"))?.to_le_bytes();
        let mut packet = Zeroizing::new(vec![low, middle, high, self.sequence]);
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream
            .write_all(&packet)
            .and_then(|()| self.stream.flush())
            .map_err(|error| lost(&error))
    }

    /// Returns the next packet, unless it is an error.
    fn receive(&mut self) -> Result<Vec<u8>, EffectError> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).map_err(|error| lost(&error))?;
        let [low, middle, high, sequence] = header;
        let length = u32::from_le_bytes([low, middle, high, 0]);
        if length > MAX_PACKET_BYTES {
            return Err(odd());
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0; usize::try_from(length).unwrap_or(0)];
        self.stream.read_exact(&mut packet).map_err(|error| lost(&error))?;
        match packet.split_first() {
            Some((0xff, error)) => Err(refusal(error)),
            Some(_) | None => Ok(packet),
        }
    }
}

impl Greeting {
    fn parse(packet: &[u8]) -> Result<Self, EffectError> {
        let rest = packet.strip_prefix(&[10]).ok_or_else(odd)?;
        let (version, rest) = until_zero(rest)?;
        let part = |range: std::ops::Range<usize>| rest.get(range).ok_or_else(odd);
        let number = |range| {
            part(range).map(|bytes| bytes.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte)))
        };
        // Behind the connection's number: salt, a zero, flags, character set, status, more flags, lengths.
        let mut salt = part(4..12)?.to_vec();
        salt.extend_from_slice(part(31..43)?);
        let capabilities = number(13..15)? | number(18..20)? << 16;
        Ok(Self { version: version.to_owned(), capabilities, salt })
    }
}

/// Returns the beginning of a login, which is also all that is said before TLS.
fn preamble(capabilities: u32) -> Vec<u8> {
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend_from_slice(&MAX_PACKET_BYTES.to_le_bytes());
    packet.push(UTF8MB4);
    packet.extend_from_slice(&[0; 23]);
    packet
}

/// Returns the proof that we know the password, which is good for this salt alone.
fn scramble(salt: &[u8], password: Option<&SecretBytes>) -> Zeroizing<Vec<u8>> {
    let Some(password) = password.filter(|password| !password.is_empty()) else {
        return Zeroizing::default();
    };
    let once: Zeroizing<[u8; 20]> = Zeroizing::new(Sha1::digest(password.expose()).into());
    let mut proof = Sha1::new();
    proof.update(salt);
    proof.update(Sha1::digest(*once));
    Zeroizing::new(proof.finalize().iter().zip(once.iter()).map(|(a, b)| a ^ b).collect())
}

fn until_zero(bytes: &[u8]) -> Result<(&str, &[u8]), EffectError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(odd)?;
    let (text, rest) = bytes.split_at(end);
    Ok((std::str::from_utf8(text).map_err(|_| odd())?, rest.get(1..).unwrap_or_default()))
}

/// Says what an error of the server's means, by its number.
fn refusal(error: &[u8]) -> EffectError {
    let number = match error {
        [low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    let text = error.get(2..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    let why = format!("{} ({number})", String::from_utf8_lossy(text));
    match number {
        // Too many connections, a shutdown, out of resources, host blocked, no more connections of a user.
        1040 | 1041 | 1053 | 1129 | 1203 => EffectError::Unreachable(why),
        _ => EffectError::Refused(why),
    }
}

fn odd() -> EffectError {
    EffectError::Refused("the server speaks another protocol than expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_and_half_of_one_is_refused() {
        let mut packet =
            b"\x0a5.5.5-10.11.19-MariaDB\0\x01\0\0\0SALTSALT\0\xfe\xf7\x2d\x02\0\xff\x81\x15"
                .to_vec();
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"saltsaltsalt\0mysql_native_password\0");
        let greeting = Greeting::parse(&packet).unwrap();
        assert_eq!(greeting.version, "5.5.5-10.11.19-MariaDB");
        assert_eq!(greeting.salt, b"SALTSALTsaltsaltsalt");
        assert_eq!(greeting.capabilities, 0x81ff_f7fe);
        for length in 0..packet.len() - 23 {
            assert!(Greeting::parse(&packet[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn an_error_says_whether_the_server_was_there() {
        let gone = refusal(b"\x10\x04#08004Too many connections");
        assert_eq!(gone, EffectError::Unreachable("Too many connections (1040)".into()));
        let denied = refusal(b"\x15\x04#28000Access denied");
        assert_eq!(denied, EffectError::Refused("Access denied (1045)".into()));
        assert_eq!(refusal(b""), EffectError::Refused(" (0)".into()));
    }
}
