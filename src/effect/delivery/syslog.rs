//! Syslog as RFC 5424 has it, over datagrams or in counted frames over a connection.
//!
//! Syslog has no answer. Over a connection we close our side and wait for the receiver to close its own: by
//! then it has read all there was. One that has died meanwhile resets the connection, and is told again.

use std::io::{Read, Write};
use std::net::{Shutdown, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::shorten::shorten;
use super::{Message, Syslog, Transport, clip, host};
use crate::effect::step::{Outcome, invalid};
use crate::effect::stream::{Stream, lost};
use crate::effect::{Address, EffectError};

/// `authpriv`, which is kept from users who are no admins.
const FACILITY: u8 = 10;
/// A datagram that is larger does not arrive.
const MAX_DATAGRAM_BYTES: usize = 60_000;
/// The largest `sequenceId` that there may be.
const MAX_SEQUENCE_ID: u64 = 2_147_483_647;

impl Syslog {
    pub(super) fn deliver(&self, messages: &[Message]) -> Outcome {
        let host = host();
        let most = match self.transport {
            Transport::Unix | Transport::Udp => MAX_DATAGRAM_BYTES,
            Transport::Tcp | Transport::Tls => usize::MAX,
        };
        let lines = messages.iter().map(|message| line(message, &host, most));
        match self.transport {
            Transport::Unix => self.send_unix(lines),
            Transport::Udp => self.send_udp(lines),
            Transport::Tcp | Transport::Tls => self.send_stream(lines),
        }?;
        Ok(format!("{} messages to {}", messages.len(), self.address))
    }

    fn send_unix(&self, lines: impl Iterator<Item = String>) -> Result<(), EffectError> {
        let Address::Socket(path) = &self.address else {
            return Err(invalid("the address is no path"));
        };
        let unreachable = |error| self.unreachable(&error);
        let socket = UnixDatagram::unbound().map_err(unreachable)?;
        socket.connect(path).map_err(unreachable)?;
        for line in lines {
            socket.send(line.as_bytes()).map_err(unreachable)?;
        }
        Ok(())
    }

    fn send_udp(&self, lines: impl Iterator<Item = String>) -> Result<(), EffectError> {
        let Address::Host { name, port } = &self.address else {
            return Err(invalid("the address is no host"));
        };
        let unreachable = |error| self.unreachable(&error);
        let there = (name.as_str(), port.unwrap_or(514)).to_socket_addrs().map_err(unreachable)?;
        let there = there.into_iter().next();
        let there = there.ok_or_else(|| self.unreachable(&"it has no address"))?;
        let here = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(here).map_err(unreachable)?;
        socket.connect(there).map_err(unreachable)?;
        for line in lines {
            socket.send(line.as_bytes()).map_err(unreachable)?;
        }
        Ok(())
    }

    fn send_stream(&self, lines: impl Iterator<Item = String>) -> Result<(), EffectError> {
        let over_tls = self.transport == Transport::Tls;
        let mut stream = Stream::connect(&self.address, if over_tls { 6514 } else { 514 })?;
        if over_tls {
            stream = stream.secured(&self.address, &self.tls())?;
        }
        let mut frames = Vec::new();
        for line in lines {
            frames.extend_from_slice(format!("{} {line}", line.len()).as_bytes());
        }
        let sent = stream.write_all(&frames).and_then(|()| stream.flush());
        sent.map_err(|error| lost(&error))?;
        stream.end().map_err(|error| lost(&error))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> EffectError {
        EffectError::Unreachable(format!("{}: {why}", self.address))
    }
}

impl Stream {
    /// Says that nothing more comes, and waits until the other side has heard it.
    fn end(mut self) -> std::io::Result<()> {
        let tcp = match &mut self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.conn.complete_io(&mut tls.sock)?;
                &mut tls.sock
            }
            Self::Unix(_) => return Ok(()),
        };
        tcp.shutdown(Shutdown::Write)?;
        let mut rest = [0; 4096];
        // What it says is nothing to us.
        while tcp.read(&mut rest)? > 0 {}
        Ok(())
    }
}

/// Returns a message as RFC 5424 has it, its text shortened where the whole would have more bytes than that.
fn line(message: &Message, host: &str, max_bytes: usize) -> String {
    let Message { seq, time, severity, event, text, .. } = message;
    let priority = FACILITY * 8 + severity.min(&7);
    let event = clip(event, 32);
    let version = env!("CARGO_PKG_VERSION");
    let sequence = seq
        .filter(|seq| (1..=MAX_SEQUENCE_ID).contains(&seq.0))
        .map_or_else(String::new, |seq| format!("[meta sequenceId=\"{seq}\"]"));
    let mut line = format!(
        "<{priority}>1 {} {} secretfs - {event} [origin software=\"secretfs\" swVersion=\"{version}\"]{sequence} ",
        time.strftime("%FT%T.%6fZ"),
        clip(host, 255),
    );
    line.push_str(&shorten(text, max_bytes.saturating_sub(line.len())));
    line
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::super::tests::message;
    use super::*;

    fn syslog(transport: Transport, address: &str) -> Syslog {
        Syslog { transport, address: address.parse().unwrap(), ca: None, server_name: None }
    }

    #[test]
    fn a_line_has_every_field_of_the_header_and_its_place_in_the_log() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            line(&message(7, "{\"seq\":7}"), "db1", usize::MAX),
            format!(
                "<82>1 2026-11-28T12:00:00.500000Z db1 secretfs - decoy [origin software=\"secretfs\" \
                 swVersion=\"{version}\"][meta sequenceId=\"7\"] {{\"seq\":7}}"
            )
        );
        let beyond = line(&message(MAX_SEQUENCE_ID + 1, "x"), "db1", usize::MAX);
        assert!(!beyond.contains("sequenceId"));
    }

    #[test]
    fn datagrams_arrive_one_a_message_and_nobody_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sender = syslog(Transport::Unix, path.to_str().unwrap());
        assert!(matches!(sender.deliver(&[message(1, "a")]), Err(EffectError::Unreachable(_))));
        let listener = UnixDatagram::bind(&path).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.deliver(&[message(1, "first"), message(2, "second")]).unwrap();
        let long = serde_json::json!({ "seq": 3, "reason": "x".repeat(70_000) }).to_string();
        let far = udp.local_addr().unwrap().to_string();
        syslog(Transport::Udp, &far).deliver(&[message(3, &long)]).unwrap();
        let mut bytes = vec![0; 70_000];
        for expected in ["first", "second"] {
            let read = listener.recv(&mut bytes).unwrap();
            assert!(bytes[..read].ends_with(expected.as_bytes()));
        }
        let read = udp.recv(&mut bytes).unwrap();
        assert!(read <= MAX_DATAGRAM_BYTES);
        let text = std::str::from_utf8(&bytes[..read]).unwrap();
        let text: serde_json::Value =
            serde_json::from_str(text.split_once("] ").unwrap().1).unwrap();
        assert_eq!((&text["seq"], text["shortened"].is_object()), (&serde_json::json!(3), true));
    }

    #[test]
    fn frames_are_counted_and_delivered_only_when_the_receiver_has_read_to_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let receiver = thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut frames = Vec::new();
            let mut count = Vec::new();
            while reader.read_until(b' ', &mut count).unwrap() > 0 {
                let length: usize = std::str::from_utf8(&count).unwrap().trim().parse().unwrap();
                let mut frame = vec![0; length];
                reader.read_exact(&mut frame).unwrap();
                frames.push(String::from_utf8(frame).unwrap());
                count.clear();
            }
            // One that takes the connection and closes it without reading.
            drop(reader);
            let (deaf, _) = listener.accept().unwrap();
            drop(deaf);
            frames
        });
        let sender = syslog(Transport::Tcp, &address);
        sender.deliver(&[message(1, "a\u{fffd}"), message(2, "b")]).unwrap();
        let large = vec![message(3, &"x".repeat(4 << 20))];
        assert!(matches!(sender.deliver(&large), Err(EffectError::Unreachable(_))));
        let frames = receiver.join().unwrap();
        assert_eq!(frames.len(), 2);
        assert!(frames[0].ends_with(" a\u{fffd}") && frames[1].ends_with(" b"), "{frames:?}");
        assert!(matches!(sender.deliver(&large), Err(EffectError::Unreachable(_))));
    }
}
