//! A server and a service's process, both in this one: the words between them are the real ones.

use std::thread::{self, JoinHandle};

use super::*;
use crate::backend::Expect;
use crate::effect::message::{Wanted, receive_order};

/// A service that answers what it was asked for.
struct Echo;

/// Begins a process for each service that is wanted, as the effector does; it knows `echo` alone.
fn effector() -> (Arc<Effector>, Arc<Mutex<Vec<String>>>) {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&begun);
    let start = move |channel: Channel| {
        let note = Arc::clone(&note);
        let run = move || {
            while let Ok(ends) = channel.receive_descriptors() {
                for end in ends {
                    let end = Channel::of_descriptor(end).unwrap();
                    let Ok(Some(Wanted::Backend(name))) = receive_order(&end) else { continue };
                    note.lock().push(name.clone());
                    let _serving: JoinHandle<_> = thread::spawn(move || {
                        let backend: Result<Arc<dyn Backend>> = match name.as_str() {
                            "echo" => Ok(Arc::new(Echo)),
                            _ => Err(BackendError::Invalid(format!("no backend {name}"))),
                        };
                        serve_backend(&end, backend)
                    });
                }
            }
        };
        thread::spawn(run);
        Ok(())
    };
    (Arc::new(Effector::of_parent(Box::new(start))), begun)
}

fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(60))
}

#[test]
fn calls_values_and_errors_arrive_as_they_were_and_one_process_makes_them_all() {
    let (effector, begun) = effector();
    let backend = Arc::new(RemoteBackend::new(effector, "echo"));
    let abilities = backend.abilities(soon()).unwrap();
    assert!(abilities.compare_and_set && !abilities.tags);
    let value = SecretBytes::copy_from(b"canary-7f3a").unwrap();
    let callers = (0..8).map(|number| {
        let backend = Arc::clone(&backend);
        thread::spawn(move || {
            let name = format!("a/{number}");
            let fetched = backend.get(&name, &Which::Current, soon()).unwrap();
            assert_eq!(fetched.value.expose(), name.as_bytes());
        })
    });
    callers.collect::<Vec<_>>().into_iter().for_each(|caller| caller.join().unwrap());
    let expect = Some(Expect::Version(VersionId("7".into())));
    let put = Put { expect, binary: true, expires: None };
    assert_eq!(backend.put("b", &value, &put, soon()).unwrap().id.0, "11 after 7");
    assert_eq!(backend.delete("b", soon()), Err(BackendError::Denied("delete b".into())));
    backend.restore("b", soon()).unwrap();
    // Longer than one message may be.
    assert_eq!(backend.list(None, soon()).unwrap().names.len(), 10_000);
    assert_eq!(*begun.lock(), ["echo"]);
}

#[test]
fn a_server_names_a_service_and_nothing_else() {
    let (effector, begun) = effector();
    let backend = RemoteBackend::new(effector, "https://elsewhere.example");
    let refused = BackendError::Invalid("no backend https://elsewhere.example".into());
    assert_eq!(backend.get("a", &Which::Current, soon()).unwrap_err(), refused);
    assert_eq!(*begun.lock(), ["https://elsewhere.example"]);
    assert_eq!(backend.abilities(soon()), Err(refused), "nothing is known, and that is no answer");
}

#[test]
fn a_call_that_hangs_ends_with_its_time_and_its_process() {
    let (effector, begun) = effector();
    let backend = RemoteBackend::new(effector, "echo");
    let late = backend.describe("hang", Deadline::within(Duration::from_millis(10)));
    assert_eq!(late.unwrap_err(), BackendError::TimedOut);
    backend.restore("b", soon()).unwrap();
    assert_eq!(*begun.lock(), ["echo", "echo"]);
}

impl Backend for Echo {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        Ok(Abilities { compare_and_set: true, ..Abilities::default() })
    }

    fn get(&self, name: &str, _: &Which, _: Deadline) -> Result<Fetched> {
        let (version, value) = (VersionId("1".into()), SecretBytes::copy_from(name.as_bytes()));
        Ok(Fetched { version, value: value.unwrap(), created: None, expires: None })
    }

    fn put(&self, _: &str, value: &SecretBytes, put: &Put, _: Deadline) -> Result<Version> {
        let Some(Expect::Version(after)) = &put.expect else { unreachable!() };
        let id = VersionId(format!("{} after {}", value.len(), after.0));
        Ok(Version { id, created: None, stages: Vec::new(), readable: put.binary })
    }

    fn describe(&self, _: &str, _: Deadline) -> Result<Description> {
        loop {
            thread::park();
        }
    }

    fn versions(&self, _: &str, _: Deadline) -> Result<Vec<Version>> {
        Ok(Vec::new())
    }

    fn list(&self, _: Option<&PageToken>, _: Deadline) -> Result<Page> {
        let names = (0..10_000).map(|number| number.to_string()).collect();
        Ok(Page { names, ..Page::default() })
    }

    fn tag(&self, _: &str, _: &BTreeMap<String, String>, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn stage(&self, _: &str, _: &str, _: &VersionId, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn delete(&self, name: &str, _: Deadline) -> Result<()> {
        Err(BackendError::Denied(format!("delete {name}")))
    }

    fn restore(&self, _: &str, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn destroy(&self, _: &str, _: Deadline) -> Result<()> {
        Ok(())
    }

    fn check(&self, _: Deadline) -> Vec<Probe> {
        Vec::new()
    }
}
