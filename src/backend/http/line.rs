//! A connection under HTTP: TLS by rustls where it is wanted, and buffers that are wiped.
//!
//! The library's own connection keeps both in ordinary memory, panics over a certificate and a key that do not
//! belong together, and takes an answer for whole that somebody has cut off.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, Transport, TransportAdapter,
};
use zeroize::{Zeroize, Zeroizing};

use super::Connection;
use crate::backend::{BackendError, Result};

/// Where Debian and others have all authorities in one file.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(super) const INPUT_BYTES: usize = 64 << 10;
pub(super) const OUTPUT_BYTES: usize = 16 << 10;

/// Makes connections that trust, and show, the same certificates.
pub(super) struct LineConnector {
    tls: Arc<ClientConfig>,
}

impl LineConnector {
    pub(super) fn new(connection: &Connection) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let bad = |error: rustls::Error| BackendError::Invalid(error.to_string());
        let trusting = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(authorities(connection.ca.as_deref())?);
        let tls = match (&connection.certificate, &connection.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                // rustls keeps the key in ordinary memory as long as it may be asked for it.
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| unusable(key, &error.to_string()))?;
                trusting.with_client_auth_cert(chain, key).map_err(bad)?
            }
            (None, None) => trusting.with_no_client_auth(),
            _ => return Err(BackendError::Invalid("certificate and key go together".into())),
        };
        Ok(Self { tls: Arc::new(tls) })
    }
}

/// Returns the authorities in a PEM file, or the system's. `Invalid` says what is wrong with the file.
pub fn authorities(path: Option<&Path>) -> Result<RootCertStore> {
    let path = path.unwrap_or(Path::new(SYSTEM_AUTHORITIES));
    let mut roots = RootCertStore::empty();
    // The system's list may have some that are too odd to be used.
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() {
        return Err(unusable(path, "there is no certificate in it"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> BackendError {
    BackendError::Invalid(format!("{}: {why}", path.display()))
}

impl<In: Transport> Connector<In> for LineConnector {
    type Out = Line;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Line>, Error> {
        let Some(below) = chained else { return Ok(None) };
        let tls = if details.needs_tls() {
            let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_| Error::Tls("the host's name is none of a TLS server"))?;
            Some(ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?)
        } else {
            None
        };
        let below: Box<dyn Transport> = Box::new(below);
        let mut below = TransportAdapter::new(below, Arc::clone(&details.current_time));
        // It counts down from here on, whatever is sent or received meanwhile.
        below.set_timeout(details.timeout);
        let mut line = Line { tls, below, buffers: WipedBuffers::new() };
        line.handshake()?;
        Ok(Some(line))
    }
}

impl fmt::Debug for LineConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineConnector")
    }
}

/// One connection.
pub(super) struct Line {
    tls: Option<ClientConnection>,
    below: TransportAdapter,
    buffers: WipedBuffers,
}

impl Line {
    fn handshake(&mut self) -> std::result::Result<(), Error> {
        self.send_records()?;
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.receive_records()?;
        }
        Ok(())
    }

    /// Sends what TLS has to send.
    fn send_records(&mut self) -> std::result::Result<(), Error> {
        while self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            if let Some(tls) = &mut self.tls {
                tls.write_tls(&mut self.below)?;
            }
        }
        Ok(())
    }

    /// Receives something, and has TLS look at it.
    fn receive_records(&mut self) -> std::result::Result<(), Error> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if tls.read_tls(&mut self.below)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Err(error) = tls.process_new_packets() {
            // The other side is told why; that it is matters less than the reason itself.
            drop(self.send_records());
            return Err(io::Error::other(error).into());
        }
        self.send_records()
    }

    fn write(&mut self, amount: usize) -> std::result::Result<(), Error> {
        let mut written = 0;
        while written < amount {
            let rest = self.buffers.output.get(written..amount).unwrap_or_default();
            written += match &mut self.tls {
                Some(tls) => tls.writer().write(rest)?,
                None => self.below.write(rest)?,
            };
            self.send_records()?;
        }
        Ok(())
    }

    fn read(&mut self) -> std::result::Result<usize, Error> {
        loop {
            let room = self.buffers.input_append_buf();
            let Some(tls) = &mut self.tls else { return Ok(self.below.read(room)?) };
            match tls.reader().read(room) {
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            match self.receive_records() {
                // Without the other side's word that it has ended, an answer that ends with the connection
                // may be cut off: this is not the kind of error that the library takes for an end.
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
                }
                received => received?,
            }
        }
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(
        &mut self,
        amount: usize,
        timeout: NextTimeout,
    ) -> std::result::Result<(), Error> {
        self.below.set_timeout(timeout);
        let written = self.write(amount);
        self.buffers.output.zeroize();
        written
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, Error> {
        self.below.set_timeout(timeout);
        let read = self.read()?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.below.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line(..)")
    }
}

/// What goes out and what has come in. Whatever was taken from them is gone.
struct WipedBuffers {
    input: Zeroizing<Box<[u8]>>,
    /// The bytes that are there and not taken yet.
    taken: usize,
    filled: usize,
    output: Zeroizing<Box<[u8]>>,
    progress: bool,
}

impl WipedBuffers {
    fn new() -> Self {
        Self {
            input: Zeroizing::new(vec![0; INPUT_BYTES].into()),
            taken: 0,
            filled: 0,
            output: Zeroizing::new(vec![0; OUTPUT_BYTES].into()),
            progress: false,
        }
    }
}

impl Buffers for WipedBuffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        self.input.get(self.taken..self.filled).unwrap_or_default()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.taken > 0 {
            let moved = self.filled - self.taken;
            self.input.copy_within(self.taken..self.filled, 0);
            self.input.get_mut(moved..self.filled).unwrap_or_default().zeroize();
            (self.taken, self.filled) = (0, moved);
        }
        self.input.get_mut(self.filled..).unwrap_or_default()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled = (self.filled + amount).min(self.input.len());
    }

    fn input_consume(&mut self, amount: usize) {
        let end = (self.taken + amount).min(self.filled);
        self.input.get_mut(self.taken..end).unwrap_or_default().zeroize();
        self.taken = end;
        self.progress = amount > 0;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (self.input.get_mut(self.filled..).unwrap_or_default(), &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.taken < self.filled && self.progress
    }
}
