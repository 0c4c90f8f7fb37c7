//! The journal, in its own protocol: fields that `journalctl` can select by, a datagram each message.

use std::os::unix::net::UnixDatagram;

use super::shorten::shorten;
use super::{Journald, Message};
use crate::effect::EffectError;
use crate::effect::step::Outcome;

/// A larger datagram would have to go as a file.
const MAX_TEXT_BYTES: usize = 60_000;

impl Journald {
    pub(super) fn deliver(&self, messages: &[Message]) -> Outcome {
        let unreachable =
            |error| EffectError::Unreachable(format!("{}: {error}", self.socket.display()));
        let socket = UnixDatagram::unbound().map_err(unreachable)?;
        socket.connect(&self.socket).map_err(unreachable)?;
        for message in messages {
            socket.send(&fields(message)).map_err(unreachable)?;
        }
        Ok(format!("{} messages to the journal", messages.len()))
    }
}

fn fields(message: &Message) -> Vec<u8> {
    let Message { seq, severity, event, summary, text, .. } = message;
    let mut bytes = Vec::new();
    let mut field = |name: &str, value: &str| {
        // With its length, so that no end of a line in it begins another field.
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    };
    field("MESSAGE", &shorten(summary, MAX_TEXT_BYTES));
    field("PRIORITY", &severity.to_string());
    field("SYSLOG_IDENTIFIER", "secretfs");
    field("SYSLOG_FACILITY", "10");
    field("SECRETFS_EVENT", event);
    field("SECRETFS_ENTRY", &shorten(text, MAX_TEXT_BYTES));
    if let Some(seq) = seq {
        field("SECRETFS_SEQ", &seq.to_string());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn each_message_is_a_datagram_of_fields_with_their_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let journal = UnixDatagram::bind(&socket).unwrap();
        let message = Message { summary: "two\nPRIORITY=0".to_owned(), ..message(9, "{}") };
        Journald { socket }.deliver(&[message]).unwrap();
        let mut bytes = vec![0; 4096];
        let read = journal.recv(&mut bytes).unwrap();
        let mut rest = &bytes[..read];
        let mut found = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let (length, after) = rest[end + 1..].split_first_chunk().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            found.push((name, String::from_utf8(after[..length].to_vec()).unwrap()));
            rest = &after[length + 1..];
        }
        let of = |name: &str| found.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
        assert_eq!(of("MESSAGE"), Some("two\nPRIORITY=0"));
        assert_eq!((of("PRIORITY"), of("SECRETFS_SEQ")), (Some("2"), Some("9")));
    }
}
