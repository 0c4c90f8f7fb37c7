//! Real consumers of files, which insist on an owner and a mode: OpenSSH, PostgreSQL and nginx.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod common;
mod servers;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use common::{Person, World, bounded, eventually, write_file};
use servers::{Server, account, port, program, succeed};

/// A user who is nobody's service.
const SOMEBODY: u32 = 1000;

/// Two services that share a key, and somebody with a key for logins.
const POLICY: &str = r#"
[[role]]
name = "tls"
allow = [{ names = ["tls/*"], levels = ["read"] }]

[[role]]
name = "ssh"
allow = [{ names = ["ssh/*"], levels = ["read"] }]

[[binding]]
id = "services"
role = "tls"
uid = ["postgres", "www-data"]

[[binding]]
id = "person"
role = "ssh"
uid = [1000]
"#;

/// Makes a key and a certificate for 127.0.0.1 and puts both into the mount as root would: the key goes
/// from the generator into the secret. Returns the certificate.
fn put_pair(world: &World) -> String {
    let (key, certificate) = (world.outside("key.pem"), world.outside("certificate.pem"));
    let (key_path, certificate_path) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    succeed(Command::new("openssl").args(
        format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
             -addext subjectAltName=IP:127.0.0.1 -keyout {key_path} -out {certificate_path}"
        )
        .split_whitespace(),
    ));
    let text = fs::read_to_string(&certificate).unwrap();
    world.put("tls/key", fs::read(&key).unwrap());
    world.put("tls/certificate", &text);
    fs::remove_file(&key).unwrap();
    text
}

fn put_ssh_key(world: &World, name: &str) -> String {
    let key = world.outside("ssh.new");
    let path = key.to_str().unwrap();
    succeed(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "example", "-f", path]),
    );
    world.put(name, fs::read(&key).unwrap());
    let public = fs::read_to_string(key.with_extension("new.pub")).unwrap();
    fs::remove_file(&key).unwrap();
    fs::remove_file(key.with_extension("new.pub")).unwrap();
    public
}

#[test]
fn ssh_keygen_takes_a_private_key_that_an_ordinary_user_reads_from_the_mount() {
    let Some(_) = program("ssh-keygen") else { return };
    let Some(world) = World::with_policy(POLICY) else { return };
    let public = put_ssh_key(&world, "ssh/id");
    let key = world.path("ssh/id");
    let derived =
        succeed(Person::new(SOMEBODY).command("ssh-keygen").arg("-y").arg("-f").arg(&key));
    assert_eq!(derived.split(' ').nth(1), public.split(' ').nth(1));
    let other = bounded(Person::new(65_534).command("ssh-keygen").arg("-y").arg("-f").arg(&key));
    assert!(!other.status.success(), "{other:?}");
    assert!(String::from_utf8(other.stderr).unwrap().contains("Permission denied"));
}

#[test]
fn ssh_logs_in_with_a_key_from_the_mount_on_a_server_whose_host_key_is_there_too() {
    let (Some(sshd), Some(_)) = (program("sshd"), program("ssh")) else { return };
    let Some(world) = World::with_policy(POLICY) else { return };
    let public = put_ssh_key(&world, "ssh/id");
    let host = put_ssh_key(&world, "host/key");
    let port = port();
    write_file(&world.outside("authorized"), public.as_bytes());
    write_file(&world.outside("known"), format!("[127.0.0.1]:{port} {host}").as_bytes());
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nPermitUserEnvironment no\n",
        world.path("host/key").display(),
        world.outside("authorized").display(),
    );
    write_file(&world.outside("sshd_config"), config.as_bytes());
    // sshd wants its directory for privilege separation, which its package's unit makes.
    drop(fs::create_dir("/run/sshd"));
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(world.outside("sshd_config"));
    let server = Server::start(command, port, world.outside("sshd.log"));

    let known = format!("UserKnownHostsFile={}", world.outside("known").display());
    let mut ssh = Person::new(SOMEBODY).command("ssh");
    ssh.args(["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"])
        .args([
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            &known,
            "-o",
            "PreferredAuthentications=publickey",
        ])
        .arg("-i")
        .arg(world.path("ssh/id"))
        .args(["-p", &port.to_string(), "root@127.0.0.1", "id -u; cat"]);
    let output = bounded(&mut ssh);
    assert!(output.status.success(), "{output:?}; sshd said: {}", server.said());
    assert_eq!(output.stdout, b"0\n");
    let reads = world.audit_of("ssh/id", "read", "allowed", SOMEBODY);
    assert!(reads.iter().any(|line| line["comm"] == "ssh"), "{reads:?}");
    assert!(!world.audit_of("host/key", "read", "allowed", 0).is_empty());
}

#[test]
fn two_service_users_each_see_one_key_as_their_own() {
    let (Some(postgres), Some(web)) = (account("postgres"), account("www-data")) else { return };
    let Some(world) = World::with_policy(POLICY) else { return };
    world.put("tls/key", "canary-7f3a");
    let path = world.path("tls/key");
    for person in [&postgres, &web] {
        let (uid, gid, mode, value) = person.run(|| {
            let found = fs::metadata(&path).unwrap();
            (found.uid(), found.gid(), found.mode() & 0o7777, fs::read_to_string(&path).unwrap())
        });
        assert_eq!((uid, gid, mode), (person.uid, person.gid, 0o400));
        assert_eq!(value, "canary-7f3a");
    }
    let stranger = Person::new(SOMEBODY).run(|| common::read(&path));
    assert_eq!(stranger, Err(libc::EACCES));
}

#[test]
fn postgresql_serves_tls_with_a_key_from_the_mount_and_takes_a_new_pair_at_a_reload() {
    let (Some(initdb), Some(postgres), Some(psql)) =
        (program("initdb"), program("postgres"), program("psql"))
    else {
        return;
    };
    let Some(owner) = account("postgres") else { return };
    let Some(world) = World::with_policy(POLICY) else { return };
    let certificate = put_pair(&world);
    let home = world.outside("pg");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(owner.uid), Some(owner.gid)).unwrap();
    let data = home.join("data");
    succeed(
        owner.command(initdb).args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&data),
    );
    let port = port();
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n\
         ssl = on\nssl_key_file = '{}'\nssl_cert_file = '{}'\nshared_buffers = 16MB\n",
        home.display(),
        world.path("tls/key").display(),
        world.path("tls/certificate").display(),
    );
    write_file(&data.join("postgresql.auto.conf"), settings.as_bytes());
    let mut command = owner.command(postgres);
    command.arg("-D").arg(&data);
    let server = Server::start(command, port, world.outside("pg.log"));

    let root = world.outside("root.pem");
    let query = |certificate: &str| {
        write_file(&root, certificate.as_bytes());
        fs::set_permissions(&root, fs::Permissions::from_mode(0o644)).unwrap();
        let target = format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=verify-full sslrootcert={}",
            root.display()
        );
        bounded(
            Command::new(&psql)
                .env("HOME", "/nonexistent")
                .args(["-XAt", &target, "-c"])
                .arg("select ssl from pg_stat_ssl where pid = pg_backend_pid()"),
        )
    };
    let answered = |output: &Output| output.status.success() && output.stdout == b"t\n";
    let mut first = query(&certificate);
    eventually("PostgreSQL answers", || {
        first = query(&certificate);
        answered(&first) || !String::from_utf8_lossy(&first.stderr).contains("starting up")
    });
    assert!(answered(&first), "{first:?}; {}", server.said());

    let renewed = put_pair(&world);
    server.signal(Signal::SIGHUP);
    eventually("PostgreSQL serves the new pair", || answered(&query(&renewed)));
    assert!(!answered(&query(&certificate)), "the old certificate is served still");
    let reads = world.audit_of("tls/key", "read", "allowed", owner.uid);
    assert!(reads.iter().any(|line| line["version"] == 2), "{reads:?}");
}

/// Asks what is served for a page, trusting that certificate alone.
fn page(port: u16, certificate: &Path) -> Output {
    bounded(
        Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(certificate)
            .arg(format!("https://127.0.0.1:{port}/")),
    )
}

#[test]
fn nginx_serves_tls_with_a_key_from_the_mount_and_takes_a_new_pair_at_a_reload() {
    let (Some(nginx), Some(_), Some(_)) = (program("nginx"), program("curl"), program("openssl"))
    else {
        return;
    };
    let Some(world) = World::with_policy(POLICY) else { return };
    let (first, second) = (world.outside("first.pem"), world.outside("second.pem"));
    write_file(&first, put_pair(&world).as_bytes());
    let (port, home) = (port(), world.outside("nginx"));
    fs::create_dir(&home).unwrap();
    let config = format!(
        "daemon off;\nworker_processes 1;\nerror_log stderr notice;\npid {home}/pid;\nevents {{}}\n\
         http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p;\n\
         fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};\n\
         location / {{ return 200 served; }} }} }}\n",
        home = home.display(),
        certificate = world.path("tls/certificate").display(),
        key = world.path("tls/key").display(),
    );
    write_file(&home.join("nginx.conf"), config.as_bytes());
    let mut command = Command::new(nginx);
    command.args(["-e", "stderr", "-p"]).arg(&home).arg("-c").arg(home.join("nginx.conf"));
    let server = Server::start(command, port, world.outside("nginx.log"));
    let answered = page(port, &first);
    assert_eq!(answered.stdout, b"served", "{answered:?}; {}", server.said());

    write_file(&second, put_pair(&world).as_bytes());
    assert!(page(port, &first).status.success(), "nothing changes before a reload");
    server.signal(Signal::SIGHUP);
    eventually("nginx serves the new pair", || page(port, &second).stdout == b"served");
    // The old workers take connections until they have noticed.
    eventually("the old pair is gone", || !page(port, &first).status.success());
    let reads = world.audit_of("tls/key", "read", "allowed", 0);
    assert!(reads.iter().any(|line| line["version"] == 2 && line["comm"] == "nginx"), "{reads:?}");
}

#[test]
fn keys_that_put_makes_are_taken_from_the_mount_and_what_is_known_of_them_is_kept() {
    let Some(world) = World::start() else { return };
    let (Some(openssl), Some(ssh_keygen)) = (program("openssl"), program("ssh-keygen")) else {
        return;
    };
    let put = |arg: &str, name: &str| {
        let output = bounded(world.secretfs().args(["put", arg, name]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = put("--generate=ssh", "ssh/key");
    let (first, public) = said.trim_end().split_once('\n').unwrap();
    assert_eq!(first, "ssh/key version 1");
    let output = bounded(Command::new(ssh_keygen).arg("-yf").arg(world.path("ssh/key")));
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), public);
    assert_eq!(world.attribute("ssh/key", "type").unwrap(), "ssh_key");

    assert_eq!(put("--generate=tls:localhost", "tls/pair"), "tls/pair version 1\n");
    let dates = ["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"];
    let output = bounded(Command::new(openssl).args(dates).arg(world.path("tls/pair")));
    let end = String::from_utf8(output.stdout).unwrap().trim_end().replace(' ', "T");
    let expires = world.attribute("tls/pair", "expires").unwrap();
    assert_eq!(end, format!("notAfter={expires}"));
}
