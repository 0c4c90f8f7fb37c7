//! A service that answers as a test wants, over TLS: with what a handler says, or with one of the faults.
//!
//! Each has a port and an authority of its own, ends when dropped, and counts what it was asked.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test programs, each of which uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    /// By names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Says that more is to come than does, and ends the connection.
    CutOff {
        status: u16,
        body: Vec<u8>,
    },
    /// Never comes to its end.
    Endless,
    /// Says nothing, and keeps the connection.
    Silence,
    /// A byte of the head now and then, for ever.
    Trickle,
    /// No HTTP at all.
    Nonsense,
    /// Just that, and then the connection breaks.
    Raw(Vec<u8>),
}

impl Reply {
    /// Returns an answer in JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    /// Returns an answer with one header and nothing else.
    pub fn status(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::Answer { status, headers, body: Vec::new() }
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// A running one.
pub struct Service {
    port: u16,
    dir: TempDir,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    ends: AtomicBool,
    connections: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    handler: Box<Handler>,
    tls: Arc<ServerConfig>,
}

impl Service {
    /// Starts one for 127.0.0.1 and localhost.
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let dir = tempfile::tempdir().unwrap();
        let pem = pem_rfc7468::encode_string(
            "CERTIFICATE",
            pem_rfc7468::LineEnding::LF,
            certificate.as_ref(),
        );
        fs::File::create(dir.path().join("ca.pem"))
            .unwrap()
            .write_all(pem.unwrap().as_bytes())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            ends: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            asked: Mutex::default(),
            handler: Box::new(handler),
            tls: Arc::new(tls),
        });
        let accepting = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        }));
        Self { port, dir, shared, accepting }
    }

    /// Starts one that always answers the same.
    pub fn that_answers(reply: Reply) -> Self {
        Self::start(move |_| reply.clone())
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// Returns the file with its authority.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Returns what was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Returns how many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes whoever accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut serving = Vec::new();
    for stream in listener.incoming() {
        if shared.ends.load(Ordering::SeqCst) {
            break;
        }
        let (Ok(stream), shared) = (stream, Arc::clone(shared)) else { break };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        // A client that goes away, or does not like the certificate, is no fault of the test.
        serving.push(thread::spawn(move || drop(serve(stream, &shared))));
    }
    for thread in serving {
        drop(thread.join());
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // So that a thread that waits sees the end of the test.
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let tls = ServerConnection::new(Arc::clone(&shared.tls)).map_err(io::Error::other)?;
    let mut stream = BufReader::new(Patient { inner: StreamOwned::new(tls, stream), shared });
    while let Some(asked) = read_request(&mut stream)? {
        shared.asked.lock().unwrap().push(asked.clone());
        let out = &mut stream.get_mut().inner;
        match (shared.handler)(&asked) {
            Reply::Answer { status, headers, body } => {
                let mut head =
                    format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                out.write_all(format!("{head}\r\n").as_bytes())?;
                out.write_all(&body)?;
            }
            Reply::CutOff { status, body } => {
                let len = body.len() + 100;
                out.write_all(
                    format!("HTTP/1.1 {status} Word\r\nContent-Length: {len}\r\n\r\n").as_bytes(),
                )?;
                out.write_all(&body)?;
                out.flush()?;
                return Ok(());
            }
            Reply::Endless => {
                out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                while !shared.ends.load(Ordering::SeqCst) {
                    out.write_all(b"4000\r\n")?;
                    out.write_all(&[b'x'; 0x4000])?;
                    out.write_all(b"\r\n")?;
                }
            }
            Reply::Silence => {
                while !shared.ends.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            Reply::Trickle => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
                while !shared.ends.load(Ordering::SeqCst) {
                    out.write_all(b"x")?;
                    out.flush()?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Reply::Nonsense => out.write_all(b"SSH-2.0-Example\r\n\r\n")?,
            Reply::Raw(bytes) => {
                out.write_all(&bytes)?;
                return out.flush();
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Reads on until there is something, or the test ends.
struct Patient<'a> {
    inner: StreamOwned<ServerConnection, TcpStream>,
    shared: &'a Shared,
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.shared.ends.load(Ordering::SeqCst) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut asked = Asked {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        ..Asked::default()
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = asked.headers.get("content-length").and_then(|length| length.parse().ok());
    asked.body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}
