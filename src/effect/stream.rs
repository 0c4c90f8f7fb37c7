//! A connection to a server: TCP, with TLS over it if wanted, or a socket in the filesystem.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{Address, EffectError, Tls};
use crate::backend::http::authorities;

/// A connection, whatever it goes over.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to a host, or to the socket at a path.
    pub(super) fn connect(address: &Address, default_port: u16) -> Result<Self, EffectError> {
        let connected = match address {
            Address::Socket(path) => UnixStream::connect(path).map(Self::Unix),
            Address::Host { name, port } => {
                TcpStream::connect((name.as_str(), port.unwrap_or(default_port))).and_then(|tcp| {
                    tcp.set_nodelay(true)?;
                    Ok(Self::Tcp(tcp))
                })
            }
        };
        connected.map_err(|error| EffectError::Unreachable(format!("{address}: {error}")))
    }

    /// Goes on over TLS, and makes sure that the server is the one in the address.
    pub(super) fn secured(self, address: &Address, tls: &Tls) -> Result<Self, EffectError> {
        let name = match (&tls.server_name, address) {
            (Some(name), _) | (None, Address::Host { name, .. }) => name,
            (None, Address::Socket(_)) => return Err(no_tls_here()),
        };
        self.over(name, trusting(tls.ca.as_deref())?)
    }

    /// Goes on over TLS with this configuration, once the handshake is done.
    pub(super) fn over(self, name: &str, config: ClientConfig) -> Result<Self, EffectError> {
        let Self::Tcp(mut tcp) = self else { return Err(no_tls_here()) };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| EffectError::Invalid(format!("{name} is no name of a TLS server")))?;
        let mut connection = ClientConnection::new(Arc::new(config), name)
            .map_err(|error| EffectError::Invalid(error.to_string()))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).map_err(|error| lost(&error))?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }
}

/// Returns a configuration that trusts the authorities in a PEM file, or the system's.
pub(super) fn trusting(path: Option<&Path>) -> Result<ClientConfig, EffectError> {
    let roots = authorities(path).map_err(|error| EffectError::Invalid(error.to_string()))?;
    Ok(configuration()?.with_root_certificates(roots).with_no_client_auth())
}

/// Returns the start of a configuration.
pub(super) fn configuration()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, EffectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| EffectError::Invalid(error.to_string()))
}

/// Says what an interrupted conversation means. A certificate that is not trusted is a refusal, and ours.
pub(super) fn lost(error: &io::Error) -> EffectError {
    let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let kind = error.kind();
    if is_tls {
        EffectError::Refused(format!("TLS: {error}"))
    } else if kind == io::ErrorKind::InvalidData || kind == io::ErrorKind::InvalidInput {
        EffectError::Refused(error.to_string())
    } else if kind == io::ErrorKind::UnexpectedEof {
        EffectError::Unreachable("the server has closed the connection".to_owned())
    } else {
        EffectError::Unreachable(error.to_string())
    }
}

fn no_tls_here() -> EffectError {
    EffectError::Invalid("there is no TLS over a socket in the filesystem".to_owned())
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}
