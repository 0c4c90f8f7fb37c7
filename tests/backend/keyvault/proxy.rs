//! A proxy behind which every host is one port of this machine, so that servers have the names that they have elsewhere.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A running one, ended when dropped. Connections end with the server behind it.
pub struct Proxy {
    port: u16,
    ends: Arc<AtomicBool>,
    hosts: Arc<Mutex<Vec<String>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ends, hosts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let accepting = Some(thread::spawn({
            let (ends, hosts) = (Arc::clone(&ends), Arc::clone(&hosts));
            move || {
                for stream in listener.incoming() {
                    if ends.load(Ordering::SeqCst) {
                        break;
                    }
                    let (Ok(stream), hosts) = (stream, Arc::clone(&hosts)) else { break };
                    // Whoever goes away early is no fault of the test.
                    thread::spawn(move || drop(join(stream, to, &hosts)));
                }
            }
        }));
        Self { port, ends, hosts, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns where it was asked to connect to, with ports.
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes whoever accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn join(client: TcpStream, to: u16, hosts: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let host = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim_end() != "" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    hosts.lock().unwrap().push(host);
    let server = TcpStream::connect(("127.0.0.1", to))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut up, mut down) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        drop(io::copy(&mut &server, &mut down));
        drop(down.shutdown(Shutdown::Both));
    });
    drop(io::copy(&mut reader, &mut up));
    drop(up.shutdown(Shutdown::Both));
    drop(back.join());
    Ok(())
}
