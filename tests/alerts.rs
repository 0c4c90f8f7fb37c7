//! What happens is told to whom `alerts.toml` names, once more rather than never; and a caller can be kept out
//! for a while, but no admin.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test file"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

mod common;
mod servers;
mod site;

use common::{Person, eventually, parse_lines, read, write_file};
use servers::{Pair, Server, directory, mortal, port, program};
use site::Site;

const ADA: u32 = 4101;
const BOB: u32 = 4102;

/// A daemon that finds anomalies at once and tells of alerts as `alerts` says.
fn site(alerts: &str) -> Option<Site> {
    let mut site = Site::new()?;
    site.init();
    let policy = site.policy();
    let rules = format!(
        "{}\n[[role]]\nname = \"reader\"\nallow = [{{ names = [\"team/**\"], levels = [\"read\"] }}]\n\
         [[binding]]\nrole = \"reader\"\nuid = [{ADA}, {BOB}]\n",
        fs::read_to_string(&policy).unwrap()
    );
    write_file(&policy, rules.as_bytes());
    let tuning = "learning_days = 0\nnew_secret_days = 0\nsettle_seconds = 0\n";
    write_file(&policy.with_file_name("anomalies.toml"), tuning.as_bytes());
    write_file(&policy.with_file_name("alerts.toml"), alerts.as_bytes());
    site.serve();
    fs::create_dir(site.secret("team")).unwrap();
    fs::write(site.secret("team/a"), "example-value").unwrap();
    Some(site)
}

fn set_alerts(site: &Site, text: &str) {
    write_file(&site.policy().with_file_name("alerts.toml"), text.as_bytes());
    site.ask(&["--json", "status"]);
    control(&site.secret(".control/reload"), "now\n").unwrap();
}

/// Makes a decoy, and has somebody who may read it do so.
fn open_decoy(site: &Site, name: &str, reader: u32) {
    let path = site.secret(name);
    if !path.exists() {
        let value = site.path("decoy");
        fs::write(&value, "example-value").unwrap();
        site.ask(&["put", "--decoy", name, "--file", value.to_str().unwrap()]);
    }
    Person::new(reader).run(|| read(&path)).unwrap();
}

fn metric(site: &Site, name: &str) -> u64 {
    let text = fs::read_to_string(site.secret(".control/metrics")).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A web server that keeps the entries of requests that are signed, and answers 503 while it is told to.
struct Hook {
    port: u16,
    refusing: Arc<AtomicBool>,
    entries: Arc<Mutex<Vec<Value>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Hook {
    fn listen(port: u16, key: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let hook = Self {
            port: listener.local_addr().unwrap().port(),
            refusing: Arc::default(),
            entries: Arc::default(),
            faults: Arc::default(),
        };
        let (refusing, entries) = (Arc::clone(&hook.refusing), Arc::clone(&hook.entries));
        let faults = Arc::clone(&hook.faults);
        // It ends with the process: a listener cannot be waked.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (head, body) = request(&stream);
                let mut status = "204 No Content";
                if refusing.load(Ordering::Acquire) {
                    status = "503 Service Unavailable";
                } else if let Err(fault) = signed(&head, &body, key) {
                    faults.lock().unwrap().push(fault);
                    status = "401 Unauthorized";
                } else {
                    let body: Value = serde_json::from_slice(&body).unwrap();
                    let new = body["entries"].as_array().unwrap().clone();
                    entries.lock().unwrap().extend(new);
                }
                let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        hook
    }

    fn route(&self, more: &str) -> String {
        format!(
            "[[receiver]]\nname = \"hook\"\nmax_per_minute = 6000\n{more}\n\
             to = {{ kind = \"webhook\", url = \"http://127.0.0.1:{}/in\", key = \"hook-key\" }}\n",
            self.port
        )
    }

    fn events(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        let word = |entry: &Value| {
            let kind = entry["detail"]["kind"].as_str();
            kind.or_else(|| entry["action"].as_str()).unwrap_or_default().to_owned()
        };
        entries.iter().map(word).collect()
    }

    fn seqs(&self) -> BTreeSet<u64> {
        self.entries.lock().unwrap().iter().filter_map(|entry| entry["seq"].as_u64()).collect()
    }
}

fn request(stream: &std::net::TcpStream) -> (Vec<String>, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        head.push(line.trim_end().to_owned());
        line.clear();
    }
    let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let of =
        |line: &'a String| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    head.iter().find_map(of).map(|(_, value)| value)
}

/// Checks a request as the manual says, with openssl(1).
fn signed(head: &[String], body: &[u8], key: &str) -> Result<(), String> {
    let missing = || format!("{head:?}");
    let time = header(head, "secretfs-timestamp").ok_or_else(missing)?;
    let told = header(head, "secretfs-signature").ok_or_else(missing)?;
    let mut text = format!("{time}.").into_bytes();
    text.extend_from_slice(body);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signed");
    fs::write(&file, text).unwrap();
    let mut command = Command::new("openssl");
    let output = command.args(["dgst", "-sha256", "-hmac", key]).arg(file).output().unwrap();
    let made = String::from_utf8(output.stdout).unwrap();
    let made = made.trim().rsplit(' ').next().unwrap().to_owned();
    if told == format!("v1={made}") { Ok(()) } else { Err(format!("{told} is not v1={made}")) }
}

#[test]
fn alerts_reach_a_command_a_datagram_socket_and_the_journal() {
    let dir = directory();
    let [log, journal, heard] = ["log", "journal", "heard"].map(|name| dir.path().join(name));
    let (syslog, journald) =
        (UnixDatagram::bind(&log).unwrap(), UnixDatagram::bind(&journal).unwrap());
    let alerts = format!(
        "[[receiver]]\nname = \"program\"\nformat = \"text\"\n\
         to = {{ kind = \"command\", argv = [\"/bin/sh\", \"-c\", \"cat >> {}\"] }}\n\
         [[receiver]]\nname = \"local\"\nformat = \"cef\"\n\
         to = {{ kind = \"syslog\", transport = \"unix\", address = \"{}\" }}\n\
         [[receiver]]\nname = \"journal\"\nto = {{ kind = \"journald\", socket = \"{}\" }}\n",
        heard.display(),
        log.display(),
        journal.display(),
    );
    let Some(site) = site(&alerts) else { return };
    open_decoy(&site, "team/trap", ADA);
    eventually("the program has heard", || {
        fs::read_to_string(&heard).is_ok_and(|text| text.contains("team/trap"))
    });
    let next = |socket: &UnixDatagram| {
        let mut bytes = vec![0; 65_536];
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let line = next(&syslog);
    assert!(line.starts_with("<82>1 ") && line.contains("CEF:0|secretfs|"), "{line}");
    let fields = next(&journald);
    assert!(fields.contains("SECRETFS_EVENT") && fields.contains("decoy"), "{fields}");
    assert!(
        ![line, fields, fs::read_to_string(&heard).unwrap()].concat().contains("example-value")
    );
}

#[test]
fn nothing_is_lost_while_the_webhook_is_down_and_the_daemon_is_killed() {
    let hook = Hook::listen(0, "canary-7f3a");
    let Some(mut site) = site(&hook.route("send = \"log\"\nbatch = 7")) else { return };
    fs::write(site.secret("hook-key"), "canary-7f3a").unwrap();
    eventually("it is told from the first line on", || hook.seqs().contains(&1));
    hook.refusing.store(true, Ordering::Release);
    let path = site.secret("team/a");
    (0..40).for_each(|_| assert!(fs::read(&path).is_ok()));
    eventually("what is not taken is a fault", || site.health().as_deref() == Some("degraded"));
    site.kill();
    site.serve();
    (0..40).for_each(|_| assert!(fs::read(site.secret("team/a")).is_ok()));
    hook.refusing.store(false, Ordering::Release);
    let reads = || site.audit().iter().filter(|line| line["secret"] == "team/a").count();
    let last = site.audit().last().unwrap()["seq"].as_u64().unwrap();
    assert!(reads() >= 80);
    eventually("it has all", || hook.seqs().contains(&last));
    let seqs = hook.seqs();
    let gaps: Vec<u64> = (1..=last).filter(|seq| !seqs.contains(seq)).collect();
    assert_eq!(gaps, [0; 0]);
    let faults = hook.faults.lock().unwrap().clone();
    assert!(faults.is_empty(), "{faults:?}");
    eventually("the fault is over", || site.health().as_deref() == Some("ok"));
}

#[test]
fn a_changed_key_signs_and_alerts_alone_are_told_where_they_alone_are_wanted() {
    let hook = Hook::listen(0, "canary-second");
    let Some(site) = site(&hook.route("min_score = 0.9")) else { return };
    fs::write(site.secret("hook-key"), "canary-first").unwrap();
    open_decoy(&site, "team/trap", ADA);
    eventually("the wrong key is refused", || !hook.faults.lock().unwrap().is_empty());
    fs::write(site.secret("hook-key"), "canary-second").unwrap();
    eventually("the alert arrives", || hook.events().contains(&"decoy".to_owned()));
    let events: BTreeSet<String> = hook.events().into_iter().collect();
    assert_eq!(events, BTreeSet::from(["decoy".to_owned()]));
    // One read of the key each time that it was new, and none for each delivery.
    let key_reads = site
        .audit()
        .into_iter()
        .filter(|line| line["secret"] == "hook-key" && line["reason"] == "for the receiver hook");
    assert!(key_reads.count() <= 4);
}

#[test]
fn damage_to_a_stored_value_and_an_emergency_are_alerts() {
    let hook = Hook::listen(0, "canary-7f3a");
    let Some(mut site) = site(&hook.route("")) else { return };
    fs::write(site.secret("hook-key"), "canary-7f3a").unwrap();
    let emergency = format!(
        "{}\n[[binding]]\nrole = \"reader\"\nuid = [{}]\nbreak_glass = \"15m\"\n",
        fs::read_to_string(site.policy()).unwrap(),
        BOB + 1
    );
    write_file(&site.policy(), emergency.as_bytes());
    control(&site.secret(".control/reload"), "now\n").unwrap();
    let grant = site.secret(".control/grant");
    let asked = Person::new(BOB + 1)
        .run(|| control(&grant, "team/a levels=read for=5m reason=fire break_glass=yes\n"));
    asked.unwrap();
    eventually("it is told", || hook.events().contains(&"break_glass".to_owned()));
    fs::write(site.secret("team/long"), common::noise(7, 300_000)).unwrap();
    site.stop();
    spoil_values(&site.state());
    site.serve();
    assert!(fs::read(site.secret("team/long")).is_err());
    eventually("damage is told", || {
        let entries = hook.entries.lock().unwrap();
        entries
            .iter()
            .any(|entry| entry["detail"]["integrity"] == true || entry["event"] == "integrity")
    });
}

/// Flips a bit in the middle of the longest value.
fn spoil_values(state: &Path) {
    let output = Command::new("python3")
        .args(["-c", SPOIL, state.join("store.redb").to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

const SPOIL: &str = r#"
import re, sys
path = sys.argv[1]
content = bytearray(open(path, "rb").read())
run = max(re.finditer(rb"(?:(?!\0{16}).)+", content, re.DOTALL), key=lambda run: len(run.group()))
content[(run.start() + run.end()) // 2] ^= 1
open(path, "wb").write(content)
"#;

#[test]
fn a_quarantined_caller_is_refused_and_told_why_until_an_admin_ends_it_and_over_a_restart() {
    let Some(mut site) = site("[[deny]]\nkinds = [\"decoy\"]\nminutes = 15\n") else { return };
    let path = site.secret("team/a");
    open_decoy(&site, "team/trap", ADA);
    let is_refused = |site: &Site| {
        let path = site.secret("team/a");
        Person::new(ADA).run(|| read(&path)).is_err()
    };
    eventually("the reader is quarantined", || is_refused(&site));
    assert!(Person::new(BOB).run(|| read(&path)).is_ok(), "another user is not");
    site.kill();
    site.serve();
    assert!(is_refused(&site), "it holds over a restart");
    let why =
        site.ask(&["policy", "explain", "team/a", "--uid", &ADA.to_string(), "--gid", "4101"]);
    assert!(why.contains("quarantine"), "{why}");
    let view = site.secret(".control/explain");
    let told = Person::new(ADA).run(|| control(&view, "team/a\n")).unwrap();
    assert!(told.to_string().contains("quarantined"), "{told}");
    assert_eq!(metric(&site, "secretfs_quarantined_users"), 1);
    let listed = site.ask(&["--json", "quarantine"]);
    assert!(
        listed.contains(&format!("\"uid\": {ADA}")) || listed.contains(&format!("\"uid\":{ADA}"))
    );
    site.ask(&["quarantine", "lift", &ADA.to_string()]);
    assert!(!is_refused(&site));
    // What was lifted does not come back for the same finding.
    site.kill();
    site.serve();
    assert!(!is_refused(&site));
    let actions: Vec<Value> = site
        .audit()
        .into_iter()
        .filter(|line| line["action"].as_str().unwrap().starts_with("quarantine"))
        .map(|line| json!([line["action"], line["detail"]["of"], line["uid"]]))
        .collect();
    assert_eq!(actions, [json!(["quarantine", ADA, null]), json!(["quarantine_end", ADA, 0])]);
}

#[test]
fn no_admin_is_quarantined_and_nobody_else_can_quarantine() {
    let Some(site) = site("[[deny]]\nminutes = 15\n") else { return };
    open_decoy(&site, "team/trap", 0);
    eventually("it is found", || site.audit().iter().any(|line| line["action"] == "anomaly"));
    open_decoy(&site, "team/trap", ADA);
    eventually("the other one is held", || metric(&site, "secretfs_quarantined_users") == 1);
    assert!(fs::read(site.secret("team/a")).is_ok());
    let (_, said) = site.refused(&[
        "--mount",
        site.secret("").to_str().unwrap(),
        "quarantine",
        "add",
        "0",
        "--for",
        "5m",
        "--reason",
        "x",
    ]);
    assert!(said.contains("no admin is held"), "{said}");
    let admin = site.secret(".control/admin");
    let asked = Person::new(BOB).run(|| control(&admin, &format!("quarantine-lift uid={ADA}\n")));
    assert!(asked.is_err());
    // By the control file alone.
    control(&admin, &format!("quarantine-lift uid={ADA}\n")).unwrap();
    assert_eq!(metric(&site, "secretfs_quarantined_users"), 0);
}

#[test]
fn a_bad_file_changes_nothing_at_a_reload_and_says_where_it_is_wrong() {
    let hook = Hook::listen(0, "canary-7f3a");
    let Some(site) = site(&hook.route("")) else { return };
    fs::write(site.secret("hook-key"), "canary-7f3a").unwrap();
    let file = site.policy().with_file_name("alerts.toml");
    write_file(&file, b"[[receiver]]\nname = \"hook\"\nto = { kind = \"pigeon\" }\n");
    let refused = control(&site.secret(".control/reload"), "now\n").unwrap_err();
    assert!(refused.contains("alerts.toml") && refused.contains("line 3"), "{refused}");
    open_decoy(&site, "team/trap", ADA);
    write_file(&file, hook.route("").as_bytes());
    eventually("who was told before still is", || hook.events().contains(&"decoy".to_owned()));
    // And who is listed no more is told no more.
    set_alerts(&site, "");
    let before = hook.entries.lock().unwrap().len();
    open_decoy(&site, "team/trap-2", BOB);
    eventually("it is found", || {
        let audit = site.audit();
        audit.iter().filter(|line| line["detail"]["kind"] == "decoy").count() == 2
    });
    assert_eq!(hook.entries.lock().unwrap().len(), before);
}

/// A real rsyslogd that takes syslog over TCP, TLS and UDP and writes what it has parsed.
struct Rsyslog {
    dir: tempfile::TempDir,
    port: u16,
    server: Option<Server>,
}

impl Rsyslog {
    fn start(port: u16) -> Option<Self> {
        let mut rsyslog = Self { dir: directory(), port, server: None };
        rsyslog.run()?;
        Some(rsyslog)
    }

    fn run(&mut self) -> Option<()> {
        let rsyslogd = program("rsyslogd")?;
        let (dir, port) = (self.dir.path(), self.port);
        let config = dir.join("rsyslog.conf");
        let out = self.out();
        let text = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"64k\")\nmodule(load=\"imtcp\")\nmodule(load=\"imudp\")\n\
             template(name=\"parsed\" type=\"list\") {{\n property(name=\"pri\")\n constant(value=\"|\")\n \
             property(name=\"app-name\")\n constant(value=\"|\")\n property(name=\"msgid\")\n \
             constant(value=\"|\")\n property(name=\"structured-data\")\n constant(value=\"|\")\n \
             property(name=\"msg\")\n constant(value=\"\\n\") }}\n\
             ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{}\" template=\"parsed\") }}\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"all\")\n\
             input(type=\"imudp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"all\")\n",
            dir.display(),
            out.display()
        );
        write_file(&config, text.as_bytes());
        let mut command = mortal(&rsyslogd);
        command.args(["-n", "-iNONE", "-f"]).arg(&config);
        self.server = Some(Server::start(command, port, dir.join("log")));
        Some(())
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("received")
    }

    /// Returns what was received: the fields of the header, and the entry.
    fn received(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        let split = |line: &str| {
            let (head, entry) = line.split_once("|{")?;
            let entry = serde_json::from_str(&format!("{{{entry}")).ok()?;
            Some((head.to_owned(), entry))
        };
        text.lines().filter_map(split).collect()
    }

    fn seqs(&self) -> BTreeSet<u64> {
        self.received().iter().filter_map(|(_, entry)| entry["seq"].as_u64()).collect()
    }
}

#[test]
fn a_real_rsyslog_gets_every_line_though_it_and_the_daemon_are_killed() {
    let Some(mut rsyslog) = Rsyslog::start(port()) else { return };
    let route = format!(
        "[[receiver]]\nname = \"siem\"\nsend = \"log\"\nbatch = 20\n\
         to = {{ kind = \"syslog\", transport = \"tcp\", address = \"127.0.0.1:{}\" }}\n\
         [[receiver]]\nname = \"udp\"\n\
         to = {{ kind = \"syslog\", transport = \"udp\", address = \"127.0.0.1:{}\" }}\n",
        rsyslog.port, rsyslog.port
    );
    let Some(mut site) = site(&route) else { return };
    eventually("it is told from the first line on", || rsyslog.seqs().contains(&1));
    rsyslog.server = None;
    (0..60).for_each(|_| assert!(fs::read(site.secret("team/a")).is_ok()));
    eventually("what is not taken is a fault", || site.health().as_deref() == Some("degraded"));
    site.kill();
    site.serve();
    rsyslog.run();
    (0..60).for_each(|_| assert!(fs::read(site.secret("team/a")).is_ok()));
    open_decoy(&site, "team/trap", ADA);
    eventually("the finding is on record", || {
        site.audit().iter().any(|line| line["action"] == "anomaly")
    });
    let last = site.audit().last().unwrap()["seq"].as_u64().unwrap();
    eventually("it has all", || rsyslog.seqs().contains(&last));
    let seqs = rsyslog.seqs();
    let gaps: Vec<u64> = (1..=last).filter(|seq| !seqs.contains(seq)).collect();
    assert_eq!(gaps, [0; 0]);
    // As parsed by rsyslog: priority, program, what it is, and the registered structured data.
    let received = rsyslog.received();
    let (head, entry) = received.iter().find(|(head, _)| head.contains("|decoy|")).unwrap();
    assert!(head.starts_with("82|secretfs|decoy|[origin software=\"secretfs\""), "{head}");
    assert!(head.contains(&format!("[meta sequenceId=\"{}\"]", entry["seq"])), "{head}");
    // The line is the log's own.
    let lines = site.audit();
    let same = lines.iter().find(|line| line["seq"] == entry["seq"]).unwrap();
    assert_eq!(entry["mac"], same["mac"]);
    assert_eq!(parse_lines(entry.to_string().as_bytes()).len(), 1);
}

#[test]
fn syslog_goes_over_tls_to_the_server_that_is_meant_and_to_no_other() {
    let dir = directory();
    let pair = Pair::make(dir.path(), "tls", None);
    let port = port();
    let heard = dir.path().join("heard");
    let mut command = mortal(Path::new("/usr/bin/env"));
    command.args(["python3", "-c", TLS_SERVER, &port.to_string()]);
    command.arg(&pair.key).arg(&pair.certificate).arg(&heard);
    let server = Server::start(command, port, dir.path().join("log"));
    let route = |ca: &Path| {
        format!(
            "[[receiver]]\nname = \"tls\"\nformat = \"text\"\nto = {{ kind = \"syslog\", transport = \"tls\", \
             address = \"127.0.0.1:{port}\", ca = \"{}\" }}\n",
            ca.display()
        )
    };
    let untrusted = Pair::make(dir.path(), "untrusted", None);
    let Some(site) = site(&route(&untrusted.certificate)) else { return };
    open_decoy(&site, "team/trap", ADA);
    eventually("another certificate is refused", || {
        let status = fs::read_to_string(site.secret(".control/status")).unwrap();
        status.contains("receiver tls: refused: TLS")
    });
    set_alerts(&site, &route(&pair.certificate));
    eventually("it is told over TLS", || {
        fs::read_to_string(&heard).is_ok_and(|text| text.contains("team/trap"))
    });
    drop(server);
}

/// Writes what it is told over TLS to a file, and closes each connection when the other side has.
const TLS_SERVER: &str = r#"
import socket, ssl, sys
_, port, key, certificate, heard = sys.argv
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", int(port)))
while True:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as stream, open(heard, "ab") as out:
            while data := stream.recv(4096):
                out.write(data)
    except OSError:
        pass
"#;

/// Runs a command of a control file, also in somebody else's place.
fn control(path: &Path, command: &str) -> Result<Value, String> {
    common::control(path, command).map_err(|refusal| format!("{refusal:?}"))
}
