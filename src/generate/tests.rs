//! Generators: evenly spread, as they are configured, and taken by the programs that use the values.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use proptest::prelude::*;
use tempfile::TempDir;

use super::password::draw;
use super::*;

#[test]
fn every_character_of_an_alphabet_is_as_likely_as_every_other() {
    let graphic: Vec<u8> = (b'!'..=b'~').collect();
    for count in [2, 10, 26, 62, 65, 94] {
        let alphabet = &graphic[..count];
        let mut counts = vec![0_u64; count];
        for _ in 0..100 {
            for byte in draw(alphabet, 10_000).unwrap().expose() {
                counts[usize::from(byte - b'!')] += 1;
            }
        }
        let (chi, [low, high]) = (chi_square(&counts), bounds(count));
        assert!((low..high).contains(&chi), "{count} characters: {chi} not in {low}..{high}");
    }
}

#[test]
fn a_modulo_would_be_seen_by_the_same_test() {
    for count in [10, 62, 94] {
        let mut counts = vec![0_u64; count];
        for byte in (0..1_000_000_usize).map(|n| n % 256) {
            counts[byte % count] += 1;
        }
        assert!(chi_square(&counts) > bounds(count)[1], "{count}");
    }
}

/// Two characters in a row are no likelier together than apart: the draws do not hang together.
#[test]
fn pairs_of_characters_are_as_likely_as_every_other() {
    let mut counts = vec![0_u64; 36];
    for _ in 0..100 {
        let drawn = draw(b"012345", 10_000).unwrap();
        for pair in drawn.expose().chunks_exact(2) {
            counts[usize::from(pair[0] - b'0') * 6 + usize::from(pair[1] - b'0')] += 1;
        }
    }
    let (chi, [low, high]) = (chi_square(&counts), bounds(36));
    assert!((low..high).contains(&chi), "{chi} not in {low}..{high}");
}

proptest! {
    #[test]
    fn passwords_meet_what_is_configured(
        length in 12_usize..80,
        explicit in prop::option::of("[!-~]{20,60}"),
        classes in prop::sample::subsequence(vec!["digits", "lower", "symbols", "upper"], 1..=4),
        exclude in "[!-~]{0,12}",
        require in prop::sample::subsequence(vec!["digits", "lower", "symbols", "upper"], 0..=4),
    ) {
        let mut config = serde_json::json!({
            "kind": "password", "length": length, "exclude": exclude, "require": require,
        });
        match &explicit {
            Some(alphabet) => config["alphabet"] = alphabet.as_str().into(),
            None => config["classes"] = classes.clone().into(),
        }
        let Ok(generator) = serde_json::from_value::<Generator>(config) else {
            // Refused: nothing to choose from, or hardly a password would do.
            return Ok(());
        };
        let password = generator.generate(&inputs()).unwrap().value;
        let bytes = password.expose();
        prop_assert_eq!(bytes.len(), length);
        prop_assert!(!bytes.iter().any(|byte| exclude.as_bytes().contains(byte)));
        match &explicit {
            Some(alphabet) => {
                prop_assert!(bytes.iter().all(|byte| alphabet.as_bytes().contains(byte)));
            }
            None => prop_assert!(bytes.iter().all(|&byte| classes.contains(&class(byte)))),
        }
        for class_name in require {
            prop_assert!(bytes.iter().any(|&byte| class(byte) == class_name), "{}", class_name);
        }
    }

    #[test]
    fn in_a_url_or_an_object_nothing_but_user_and_password_changes(
        user in "[a-z_]{1,9}",
        path in "[a-z0-9?=&#/]{0,20}",
        shape in prop::sample::select(vec!["url", "json", "password"]),
        object in any::<bool>(),
    ) {
        let is_object = shape == "json" || (shape == "password" && object);
        let (before, between, after) = match is_object {
            true => (r#"{ "username": ""#, r#"", "password" : ""#, format!(r#"", "path":"{path}"}}"#)),
            false => ("postgresql://", ":", format!("@db:5432/{path}")),
        };
        let current = secret(&format!("{before}old{between}example{after}"));
        let inputs = Inputs { current: Some(&current), user: Some(&user), ..inputs() };
        let made = generator(&format!(r#"{{"kind":"{shape}","length":40}}"#)).generate(&inputs);
        let made = made.unwrap().value;
        let text = std::str::from_utf8(made.expose()).unwrap();
        let start = format!("{before}{user}{between}");
        let password = text.strip_prefix(&start).unwrap().strip_suffix(&after).unwrap();
        prop_assert!(password.len() == 40 && password.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}

#[test]
fn the_hardest_requirement_that_is_let_through_is_met() {
    let alphabet = (b'!'..=b'~').filter(u8::is_ascii_punctuation).chain(*b"1Aa");
    let alphabet: String = alphabet.map(char::from).collect();
    let config = serde_json::json!({
        "kind": "password", "length": 8, "alphabet": alphabet, "require": ["digits", "lower", "upper"],
    });
    let generator: Generator = serde_json::from_value(config).unwrap();
    for _ in 0..20 {
        let value = generator.generate(&inputs()).unwrap().value;
        assert!(b"1Aa".iter().all(|byte| value.expose().contains(byte)));
    }
}

#[test]
fn passwords_that_read_as_something_else_are_drawn_again() {
    let config = r#"{"kind":"password","alphabet":"a:/@","length":64}"#;
    for _ in 0..200 {
        let value = generator(config).generate(&inputs()).unwrap().value;
        assert_eq!(credential::shape(&value), Ok(Shape::Bare));
    }
}

#[test]
fn a_value_that_has_no_place_for_what_is_made_stays_as_it_is() {
    let (url, bare, token_url) = (secret("p://u:x@h"), secret("x"), secret("https://token@h"));
    let of = |kind: &str, current: Option<&SecretBytes>, user: Option<&str>| {
        let inputs = Inputs { current, user, ..inputs() };
        generator(&format!(r#"{{"kind":"{kind}"}}"#)).generate(&inputs).map(drop)
    };
    use GenerateError::{NeedsCurrent, Shape as Wrong};
    assert!(matches!(of("url", None, None), Err(NeedsCurrent(Shape::Url))));
    assert!(matches!(of("url", Some(&bare), None), Err(NeedsCurrent(Shape::Url))));
    assert!(matches!(of("json", Some(&url), None), Err(NeedsCurrent(Shape::Json))));
    assert!(matches!(of("password", Some(&token_url), None), Err(Wrong(ShapeError::NoPassword))));
    assert!(matches!(of("password", Some(&bare), Some("b")), Err(Wrong(ShapeError::NoUser))));
    assert!(matches!(of("password", None, Some("b")), Err(Wrong(ShapeError::NoUser))));
    assert!(matches!(of("api_key", Some(&url), Some("b")), Err(Wrong(ShapeError::NoUser))));
    assert!(of("password", Some(&url), Some("b")).is_ok());
}

#[test]
fn tokens_have_their_form_and_their_bytes() {
    let text = |config: &str| text(&generator(config).generate(&inputs()).unwrap().value);
    let key = text(r#"{"kind":"api_key"}"#);
    assert_eq!(Base64UrlUnpadded::decode_vec(&key).unwrap().len(), 32);
    let webhook = text(r#"{"kind":"prefixed","prefix":"whsec_","bytes":24,"encoding":"base64"}"#);
    let random = webhook.strip_prefix("whsec_").unwrap();
    assert_eq!(Base64::decode_vec(random).unwrap().len(), 24);
    let hex = text(r#"{"kind":"raw","bytes":16,"encoding":"hex"}"#);
    assert!(hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let hmac = text(r#"{"kind":"hmac","algorithm":"hs512"}"#);
    assert_eq!(Base64UrlUnpadded::decode_vec(&hmac).unwrap().len(), 64);
    let raw = generator(r#"{"kind":"raw","bytes":4096}"#).generate(&inputs()).unwrap().value;
    let different: BTreeSet<u8> = raw.expose().iter().copied().collect();
    assert!(raw.len() == 4096 && different.len() == 256);
    for _ in 0..100 {
        let uuid = text(r#"{"kind":"uuid"}"#);
        let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert!(uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-')));
        assert!(&uuid[14..15] == "4" && "89ab".contains(&uuid[19..20]));
    }
    assert_ne!(text(r#"{"kind":"uuid"}"#), text(r#"{"kind":"uuid"}"#));
}

#[test]
fn each_type_has_a_default_but_those_whose_other_half_lives_elsewhere() {
    for secret_type in SecretType::ALL {
        let without = [
            SecretType::EncryptionKey,
            SecretType::ServiceAccountKey,
            SecretType::SshKey,
            SecretType::TlsCertificate,
        ];
        let generator = Generator::default_for(secret_type);
        assert_eq!(generator.is_none(), without.contains(&secret_type), "{secret_type}");
        if let Some(generator) = generator {
            let made = generator.generate(&inputs()).unwrap().value;
            assert!(made.len() >= 32, "{secret_type}");
            if secret_type == SecretType::WebhookSecret {
                assert_eq!(SecretType::guess("x", made.expose()), secret_type);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_generator_is_said() {
    let cases = [
        (r#"{"kind":"magic"}"#, "unknown variant `magic`"),
        (r#"{"kind":"uuid","bytes":16}"#, "unknown field `bytes`"),
        (r#"{"kind":"api_key","length":16}"#, "unknown field `length`"),
        (r#"{"kind":"api_key","bytes":8}"#, "8 random bytes: use 16 to 4096"),
        (r#"{"kind":"prefixed","prefix":"a b"}"#, "\"a b\" is no prefix"),
        (r#"{"kind":"password","size":16}"#, "unknown field `size`"),
        (r#"{"kind":"password","length":5}"#, "5 of 62 characters are 30 bits"),
        (r#"{"kind":"password","length":70000}"#, "at most 65536 characters"),
        (r#"{"kind":"password","alphabet":"ab c"}"#, "' ' cannot be in a password"),
        (r#"{"kind":"password","alphabet":"ab","classes":["lower"]}"#, "use either `alphabet`"),
        (
            r#"{"kind":"password","require":["symbols"]}"#,
            "symbols are required, but there are none",
        ),
        (r#"{"kind":"ssh","bits":2048}"#, "`bits` is for rsa"),
        (r#"{"kind":"ssh","algorithm":"rsa","bits":1024}"#, "use 2048, 3072 or 4096"),
        (r#"{"kind":"ssh","comment":"a\nb"}"#, "`comment` is one line"),
        (r#"{"kind":"tls","names":[]}"#, "at least one of `names`"),
        (r#"{"kind":"tls","names":["a b"]}"#, "\"a b\" cannot be in a certificate"),
        (r#"{"kind":"tls","names":["a"],"days":0}"#, "a certificate of 0 days"),
        (r#"{"kind":"tls","names":["a"],"uses":[]}"#, "`uses` is empty"),
    ];
    for (config, expected) in cases {
        let error = serde_json::from_str::<Generator>(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{config}: {error}");
    }
}

#[test]
fn a_generator_is_read_back_from_what_is_written() {
    for config in [
        r#"{"kind":"password","length":20,"exclude":"l1O0","require":["digits"]}"#,
        r#"{"kind":"prefixed","prefix":"sk_","bytes":24,"encoding":"hex"}"#,
        r#"{"kind":"hmac","algorithm":"hs384"}"#,
        r#"{"kind":"ssh","algorithm":"rsa","bits":4096,"comment":"deploy"}"#,
        r#"{"kind":"tls","names":["a.example","10.0.0.1"],"uses":["client"],"authority":"ca/key"}"#,
        r#"{"kind":"uuid"}"#,
    ] {
        let generator = generator(config);
        let written = serde_json::to_string(&generator).unwrap();
        assert_eq!(serde_json::from_str::<Generator>(&written).unwrap(), generator, "{written}");
    }
    let tls = generator(r#"{"kind":"tls","names":["a"],"authority":"ca/key"}"#);
    assert_eq!(tls.authority().unwrap().as_str(), "ca/key");
}

#[test]
fn the_example_in_the_manual_is_a_generator() {
    let manual = include_str!("../../docs/ROTATION.md");
    let section = manual.split("\n## ").find(|part| part.starts_with("Generators")).unwrap();
    let examples = section.split("```toml\n").skip(1);
    let examples: Vec<&str> = examples.map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let generator: Generator = toml::from_str(example).unwrap();
        assert!(!generator.generate(&inputs()).unwrap().value.is_empty());
    }
}

#[test]
fn ssh_keys_are_read_and_used_by_ssh_keygen_and_give_the_public_half() {
    let Some(world) = World::with(&["ssh-keygen"]) else { return };
    for (config, kind, bits) in [
        (r#"{"kind":"ssh","comment":"deploy key"}"#, "ssh-ed25519", "256"),
        (r#"{"kind":"ssh","algorithm":"rsa","bits":2048}"#, "ssh-rsa", "2048"),
    ] {
        let made = generator(config).generate(&inputs()).unwrap();
        let key = world.file(kind, &made.value);
        let derived = world.run("ssh-keygen", [OsStr::new("-y"), "-f".as_ref(), key.as_ref()]);
        let public = made.public.unwrap();
        assert_eq!(derived.trim_end(), public.trim_end());
        assert!(public.starts_with(kind));
        let listed = world.run("ssh-keygen", [OsStr::new("-l"), "-f".as_ref(), key.as_ref()]);
        assert!(listed.starts_with(&format!("{bits} SHA256:")), "{listed}");
        // A signature of nothing, which is what the check reads from standard input.
        let message = world.file(&format!("{kind}.message"), &secret(""));
        let sign = format!("-Y sign -n test -f {} {}", key.display(), message.display());
        world.run("ssh-keygen", sign.split_whitespace());
        let check = format!("-Y check-novalidate -n test -s {}.sig", message.display());
        let checked = world.run("ssh-keygen", check.split_whitespace());
        assert!(checked.starts_with("Good \"test\" signature"), "{checked}");
        assert_eq!(SecretType::guess("x", made.value.expose()), SecretType::SshKey);
    }
}

#[test]
fn certificates_that_sign_themselves_are_what_openssl_expects() {
    let Some(world) = World::with(&["openssl"]) else { return };
    let start = inputs();
    for algorithm in ["p256", "p384", "ed25519"] {
        let made = generator(&format!(
            r#"{{"kind":"tls","names":["db.example","*.db.example","10.0.0.7","::1"],
                "days":30,"algorithm":"{algorithm}","uses":["server","client"]}}"#
        ))
        .generate(&start)
        .unwrap();
        let pair = world.file(algorithm, &made.value);
        world.verify(&pair, &[&pair], &[]);
        world.assert_pair(&pair);
        let text = world.x509(&pair, &["-ext", "subjectAltName,extendedKeyUsage,basicConstraints"]);
        for part in [
            "DNS:db.example, DNS:*.db.example, IP Address:10.0.0.7, IP Address:0:0:0:0:0:0:0:1",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "CA:FALSE",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(world.x509(&pair, &["-subject"]).trim(), "subject=CN = db.example");
        world.assert_ends(&pair, made.expires.unwrap());
        assert_eq!(made.expires.unwrap().duration_since(start.now).as_hours(), 30 * 24);
    }
}

#[test]
fn certificates_signed_by_an_authority_are_verified_up_to_its_root() {
    let Some(world) = World::with(&["openssl"]) else { return };
    let root = world.root("ec -pkeyopt ec_paramgen_curve:P-384", "root", 3650);
    let between = world.intermediate(&root, "between");
    let rsa = world.root("rsa:2048", "rsa", 3650);
    let config = r#"{"kind":"tls","names":["db.example"],"days":90,"authority":"ca/key"}"#;
    for (bundle, trusted, certificates) in
        [(&root, &root, 1), (&between, &root, 2), (&rsa, &rsa, 1)]
    {
        let authority = secret(&std::fs::read_to_string(bundle).unwrap());
        let inputs = Inputs { authority: Some(&authority), ..inputs() };
        let made = generator(config).generate(&inputs).unwrap();
        let pair = world.file("pair", &made.value);
        world.verify(&pair, &[trusted], &[&pair]);
        world.assert_pair(&pair);
        world.assert_ends(&pair, made.expires.unwrap());
        let pem = text(&made.value);
        assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), certificates, "the chain");
        assert_eq!(pem.matches("PRIVATE KEY").count(), 2, "one key: its own");
    }
}

#[test]
fn a_certificate_ends_no_later_than_its_authority() {
    let Some(world) = World::with(&["openssl"]) else { return };
    let root = world.root("ec -pkeyopt ec_paramgen_curve:P-256", "root", 10);
    let authority = secret(&std::fs::read_to_string(&root).unwrap());
    let inputs = Inputs { authority: Some(&authority), ..inputs() };
    let config = r#"{"kind":"tls","names":["db.example"],"days":90,"authority":"ca/key"}"#;
    let made = generator(config).generate(&inputs).unwrap();
    world.assert_ends(&root, made.expires.unwrap());
    let pair = world.file("pair", &made.value);
    world.assert_ends(&pair, made.expires.unwrap());
}

#[test]
fn an_authority_that_nobody_would_believe_is_refused() {
    let Some(world) = World::with(&["openssl"]) else { return };
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let root = read(&world.root("ec -pkeyopt ec_paramgen_curve:P-256", "root", 10));
    let other = read(&world.root("ec -pkeyopt ec_paramgen_curve:P-256", "other", 10));
    let (key, certificate) = root.split_at(root.find("-----BEGIN CERT").unwrap());
    let other_key = other.split_at(other.find("-----BEGIN CERT").unwrap()).0;
    let self_signed = generator(r#"{"kind":"tls","names":["leaf"]}"#);
    let leaf = text(&self_signed.generate(&inputs()).unwrap().value);
    let in_a_year = now() + std::time::Duration::from_secs(365 * 24 * 3600);
    for (bundle, at, expected) in [
        (key.to_owned(), now(), "there is no certificate"),
        (certificate.to_owned(), now(), "there is no private key"),
        (format!("{other_key}{certificate}"), now(), "does not belong"),
        (leaf, now(), "not one of an authority"),
        (root.clone(), in_a_year, "has expired"),
        (root.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), now(), "must be PKCS#8"),
        (root.replace("-----END CERT", "-----"), now(), "malformed"),
        ("example".into(), now(), "there is no private key"),
    ] {
        let bundle = secret(&bundle);
        let inputs = Inputs { authority: Some(&bundle), now: at, ..inputs() };
        let config = r#"{"kind":"tls","names":["a"],"authority":"ca/key"}"#;
        let error = generator(config).generate(&inputs).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let config = r#"{"kind":"tls","names":["a"],"authority":"ca/key"}"#;
    let error = generator(config).generate(&inputs()).unwrap_err();
    assert!(matches!(error, GenerateError::NoAuthority), "never signs itself instead");
}

fn generator(config: &str) -> Generator {
    serde_json::from_str(config).unwrap()
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes()).unwrap()
}

fn text(value: &SecretBytes) -> String {
    String::from_utf8(value.expose().to_vec()).unwrap()
}

fn inputs() -> Inputs<'static> {
    Inputs { current: None, user: None, authority: None, now: now() }
}

/// The real time, to the second: openssl checks against its own clock.
fn now() -> Timestamp {
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_second(i64::try_from(clock.as_secs()).unwrap()).unwrap()
}

fn class(byte: u8) -> &'static str {
    match byte {
        b'0'..=b'9' => "digits",
        b'a'..=b'z' => "lower",
        b'A'..=b'Z' => "upper",
        _ => "symbols",
    }
}

fn chi_square(counts: &[u64]) -> f64 {
    let float = |n: u64| f64::from(u32::try_from(n).unwrap());
    let total: u64 = counts.iter().sum();
    let expected = float(total) / float(counts.len() as u64);
    counts.iter().map(|&count| (float(count) - expected).powi(2) / expected).sum()
}

/// Returns what chi-square exceeds, or falls below, once in a thousand million times each, after
/// Wilson and Hilferty.
fn bounds(count: usize) -> [f64; 2] {
    let freedom = f64::from(u32::try_from(count - 1).unwrap());
    [-6.0, 6.0].map(|deviations: f64| {
        let root = 1.0 - 2.0 / (9.0 * freedom) + deviations * (2.0 / (9.0 * freedom)).sqrt();
        freedom * root.max(0.0).powi(3)
    })
}

/// A directory of key files, and the programs that look at them.
struct World(TempDir);

impl World {
    fn with(programs: &[&str]) -> Option<Self> {
        for program in programs {
            if Command::new(program).arg("version").stdin(Stdio::null()).output().is_err() {
                assert!(std::env::var_os("SECRETFS_REQUIRE_ALL").is_none(), "no {program}");
                std::io::stderr().write_all(b"SKIP: openssl or ssh-keygen is missing\n").unwrap();
                return None;
            }
        }
        Some(Self(tempfile::tempdir().unwrap()))
    }

    fn file(&self, name: &str, contents: &SecretBytes) -> PathBuf {
        let path = self.0.path().join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600);
        file.open(&path).unwrap().write_all(contents.expose()).unwrap();
        path
    }

    fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> String {
        let mut command = Command::new(program);
        let output = command.args(args).current_dir(&self.0).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn openssl(&self, line: &str) -> String {
        self.run("openssl", line.split_whitespace())
    }

    /// Makes an authority that signs itself: key and certificate in one file.
    fn root(&self, key: &str, name: &str, days: u32) -> PathBuf {
        self.openssl(&format!(
            "req -x509 -newkey {key} -noenc -keyout {name}.key -out {name}.crt -days {days} \
             -subj /O=Example/CN={name} -addext keyUsage=critical,keyCertSign"
        ));
        self.bundle(name, &[])
    }

    fn intermediate(&self, root: &Path, name: &str) -> PathBuf {
        let extensions = self.0.path().join("extensions");
        let text = secret("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
        self.file("extensions", &text);
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout {name}.key \
             -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {root} -CAkey {root} -CAcreateserial -days 1000 \
             -extfile {extensions} -out {name}.crt",
            root = root.display(),
            extensions = extensions.display(),
        ));
        self.bundle(name, &["root.crt"])
    }

    fn bundle(&self, name: &str, above: &[&str]) -> PathBuf {
        let own = [format!("{name}.key"), format!("{name}.crt")];
        let parts = own.iter().map(String::as_str).chain(above.iter().copied());
        let read = |part: &str| std::fs::read_to_string(self.0.path().join(part)).unwrap();
        let text: String = parts.map(read).collect();
        self.file(&format!("{name}.pem"), &secret(&text))
    }

    fn verify(&self, certificate: &Path, trusted: &[&Path], between: &[&Path]) {
        let mut args: Vec<&OsStr> = vec!["verify".as_ref(), "-x509_strict".as_ref()];
        for path in trusted {
            args.extend([OsStr::new("-CAfile"), path.as_ref()]);
        }
        for path in between {
            args.extend([OsStr::new("-untrusted"), path.as_ref()]);
        }
        args.push(certificate.as_ref());
        self.run("openssl", args);
    }

    fn x509(&self, certificate: &Path, args: &[&str]) -> String {
        let line = format!("x509 -noout -in {} {}", certificate.display(), args.join(" "));
        self.openssl(&line)
    }

    /// The first key and the first certificate of a file belong together.
    fn assert_pair(&self, pair: &Path) {
        let key = self.openssl(&format!("pkey -pubout -in {}", pair.display()));
        assert_eq!(key, self.x509(pair, &["-pubkey"]));
    }

    fn assert_ends(&self, certificate: &Path, expected: Timestamp) {
        let end = self.x509(certificate, &["-enddate", "-dateopt", "iso_8601"]);
        let end = end.trim().strip_prefix("notAfter=").unwrap().replace(' ', "T");
        assert_eq!(end.parse::<Timestamp>().unwrap(), expected);
    }
}
