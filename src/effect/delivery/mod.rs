//! Deliveries: alerts and lines of the audit log on their way to a receiver, several at a time.
//!
//! A delivery has succeeded when its receiver has taken all of its messages, as far as the protocol can tell;
//! else all of them are delivered again. Messages hold names and no value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::run::Run;
use super::step::{Outcome, Step, invalid};
use super::{Address, Command, EffectError, Tls};
use crate::model::{SecretName, Seq, Timestamp};
use crate::system::SecretBytes;

mod journald;
mod shorten;
mod syslog;
mod webhook;

/// Messages for a receiver; they come as the order's new value, each a line of JSON.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Delivery {
    /// What the receiver is called in `alerts.toml`.
    pub name: String,
    pub to: Receiver,
}

/// One of the messages.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// The line of the log that it stands for.
    pub seq: Option<Seq>,
    pub time: Timestamp,
    /// As in syslog: from 0, an emergency, to 7.
    pub severity: u8,
    /// One word: what has happened.
    pub event: String,
    /// One sentence for people.
    pub summary: String,
    /// What is delivered, on one line: in the format that the receiver wants.
    pub text: String,
}

/// Who is told, and how.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Receiver {
    /// A program that reads the texts from its standard input, a line each.
    Command(Command),
    Journald(Journald),
    Syslog(Syslog),
    Webhook(Webhook),
}

/// systemd's journal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Journald {
    #[serde(default = "journal")]
    pub socket: PathBuf,
}

/// A server that speaks RFC 5424.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    pub transport: Transport,
    /// A path for `unix`; else a host, with the port 514 or, for TLS, 6514 unless it says another.
    #[serde(default = "dev_log")]
    pub address: Address,
    /// For TLS, a PEM file with the authorities that are trusted; the system's, if none is named.
    pub ca: Option<PathBuf>,
    /// For TLS, the name that is asked for, if it is not the one in the address.
    pub server_name: Option<String>,
}

/// How syslog travels.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Counted frames (RFC 6587) on a connection.
    Tcp,
    /// The same over TLS (RFC 5425).
    Tls,
    /// A datagram each (RFC 5426), of which nobody says whether it has arrived.
    Udp,
    /// A datagram each to a socket of this machine.
    Unix,
}

/// A web server that takes a signed POST.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://`, or `http://` to this machine itself.
    pub url: String,
    /// The secret whose value signs the requests.
    pub key: SecretName,
    /// A PEM file with the authorities that are trusted; the system's, if none is named.
    pub ca: Option<PathBuf>,
}

impl Delivery {
    /// Takes the messages to the receiver.
    pub(super) fn deliver(&self, step: &Step<'_>) -> Outcome {
        let messages = Message::read(step.new_value()?)?;
        match &self.to {
            Receiver::Command(command) => {
                let texts = messages.iter().map(|message| format!("{}\n", message.text));
                let texts = SecretBytes::copy_from(texts.collect::<String>().as_bytes());
                let texts = texts.map_err(|error| invalid(&error.to_string()))?;
                Run { input: Some(&texts), ..Run::of(command) }.to_the_end(step)
            }
            Receiver::Journald(journald) => journald.deliver(&messages),
            Receiver::Syslog(syslog) => syslog.deliver(&messages),
            Receiver::Webhook(webhook) => {
                let key = step.values.admin.as_ref();
                let key = key.ok_or_else(|| invalid("the order has no key"))?;
                webhook.deliver(&self.name, &messages, key)
            }
        }
    }
}

impl Receiver {
    /// Says what is wrong with it, beyond what its keys say.
    pub fn objection(&self) -> Option<String> {
        match self {
            Self::Command(_) | Self::Journald(_) => None,
            Self::Syslog(syslog) => {
                let is_path = matches!(syslog.address, Address::Socket(_));
                match (syslog.transport, is_path, &syslog.ca, &syslog.server_name) {
                    (Transport::Unix, false, ..) => {
                        Some("the address of a unix transport is a path".to_owned())
                    }
                    (Transport::Tcp | Transport::Tls | Transport::Udp, true, ..) => {
                        Some("the address is HOST or HOST:PORT".to_owned())
                    }
                    (Transport::Tcp | Transport::Udp | Transport::Unix, _, ca, name)
                        if ca.is_some() || name.is_some() =>
                    {
                        Some("`ca` and `server_name` go with the transport tls".to_owned())
                    }
                    _ => None,
                }
            }
            Self::Webhook(webhook) => {
                super::web::Url::parse(&webhook.url).err().map(|error| error.to_string())
            }
        }
    }
}

impl Syslog {
    fn tls(&self) -> Tls {
        Tls { ca: self.ca.clone(), server_name: self.server_name.clone() }
    }
}

impl Message {
    /// Returns messages as they go along with an order.
    pub fn write(messages: &[Self]) -> Result<Vec<u8>, serde_json::Error> {
        let mut lines = Vec::new();
        for message in messages {
            serde_json::to_writer(&mut lines, message)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    fn read(lines: &SecretBytes) -> Result<Vec<Self>, EffectError> {
        let lines = lines.expose().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        read.map_err(|_| invalid("a message is malformed"))
    }
}

/// Returns as much of a text as fits, in whole characters.
fn clip(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Returns the name of this machine.
fn host() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(|_| "-".to_owned(), |name| name.nodename().to_string_lossy().into_owned())
}

fn journal() -> PathBuf {
    "/run/systemd/journal/socket".into()
}

fn dev_log() -> Address {
    Address::Socket("/dev/log".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn message(seq: u64, text: &str) -> Message {
        Message {
            seq: Some(Seq(seq)),
            time: "2026-11-28T12:00:00.5Z".parse().unwrap(),
            severity: 2,
            event: "decoy".to_owned(),
            summary: "somebody opened a decoy".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let messages = [message(1, "a\"b"), message(2, "{\"c\":\"\\n\"}")];
        let written = SecretBytes::copy_from(&Message::write(&messages).unwrap()).unwrap();
        assert_eq!(Message::read(&written).unwrap(), messages);
        assert!(Message::read(&SecretBytes::copy_from(b"{}\n").unwrap()).is_err());
    }

    #[test]
    fn a_receiver_that_cannot_be_reached_as_it_stands_is_objected_to() {
        let objection = |text: &str| toml::from_str::<Receiver>(text).unwrap().objection();
        let syslog = "kind = \"syslog\"\n";
        assert_eq!(objection(&format!("{syslog}transport = \"unix\"")), None);
        for text in [
            format!("{syslog}transport = \"udp\""),
            format!("{syslog}transport = \"unix\"\naddress = \"log.example\""),
            format!("{syslog}transport = \"tcp\"\naddress = \"log.example\"\nca = \"/ca.pem\""),
            "kind = \"webhook\"\nkey = \"a\"\nurl = \"http://far.example/\"".to_owned(),
        ] {
            assert!(objection(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip("a\u{fffd}b", 3), "a");
        assert_eq!(clip("abc", 3), "abc");
    }
}
