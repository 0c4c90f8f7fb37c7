//! What a read costs of a secret that another service keeps, beside one of our own: without FUSE, so that the
//! difference is not lost in the kernel's part.
//!
//! `cargo bench --bench routes [-- --smoke]` prints nanoseconds a call as medians of rounds taken in turns, and
//! their ratios. The service counts its requests: a warm read must make none.
#![expect(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark is a program for people"
)]

mod support;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use secretfs::backend::{
    Abilities, Backend, BackendError, Deadline, Description, Fetched, Page, PageToken, Probe, Put,
    Result, Version, VersionId, Which,
};
use secretfs::broker::{self, Broker, Sought};
use secretfs::model::{Caller, Clock, Gid, SecretName, Uid};
use secretfs::route::{Cache, Route, Routes};
use secretfs::system::{SecretBytes, SystemClock};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (rounds, calls) = if smoke { (3, 100) } else { (41, 20_000) };
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [alone, routed] = directories.each_ref().map(|directory| support::broker(directory.path()));
    let service = Arc::new(Service::default());
    // Kept: the broker's copy of it is all that is needed.
    let _routes = route(&routed, &service);

    let admin = Caller::with_ids(Uid(0), Gid(0));
    let here: SecretName = "prod/db/password".parse().unwrap();
    let there: SecretName = "cloud/db/password".parse().unwrap();
    for broker in [&alone, &routed] {
        let value = SecretBytes::copy_from(&VALUE).unwrap();
        broker.write(&admin, &here, value, &broker::Put::default()).unwrap();
    }
    routed.fetch(&Sought::Secret(there.clone()), Duration::from_secs(60)).unwrap();
    let asked = service.requests.load(Ordering::Relaxed);

    let read = |broker: &Broker, name: &SecretName| {
        black_box(broker.read(&admin, name, broker::Which::Current).unwrap());
    };
    let time = |run: &dyn Fn()| {
        let start = Instant::now();
        (0..calls).for_each(|_| run());
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        let [local, beside, warm] = &mut times;
        local.push(time(&|| read(&alone, &here)));
        beside.push(time(&|| read(&routed, &here)));
        warm.push(time(&|| read(&routed, &there)));
    }
    let [local, beside, warm] = times.map(support::median);
    println!("{:44} {local:8.0} ns", "our own, without any route");
    println!("{:44} {beside:8.0} ns  {:.3}", "our own, beside a route", beside / local);
    println!("{:44} {warm:8.0} ns  {:.3}", "another service's, warm", warm / local);
    assert_eq!(service.requests.load(Ordering::Relaxed), asked, "a warm read asked the service");
    alone.close();
    routed.close();
}

const VALUE: [u8; 100] = [b'x'; 100];

fn route(broker: &Broker, service: &Arc<Service>) -> Routes {
    let route = Route {
        path: "cloud".parse().unwrap(),
        backend: "bench".into(),
        client: Arc::<Service>::clone(service),
        cache: Cache { prefetch: false, fresh: Duration::from_secs(86_400), ..Cache::default() },
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let routes = Routes::new(broker, &clock, vec![route]).unwrap();
    broker.fetch_from(Arc::new(routes.clone()));
    routes
}

/// A service with one value under every name.
#[derive(Default)]
struct Service {
    requests: AtomicU64,
}

impl Service {
    fn none<T>(&self) -> Result<T> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Err(BackendError::Unsupported("it is there to be read".into()))
    }
}

impl Backend for Service {
    fn abilities(&self, _: Deadline) -> Result<Abilities> {
        Ok(Abilities::default())
    }

    fn get(&self, _: &str, _: &Which, _: Deadline) -> Result<Fetched> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(Fetched {
            version: VersionId("1".into()),
            value: SecretBytes::copy_from(&VALUE).unwrap(),
            created: None,
            expires: None,
        })
    }

    fn put(&self, _: &str, _: &SecretBytes, _: &Put, _: Deadline) -> Result<Version> {
        self.none()
    }

    fn describe(&self, _: &str, _: Deadline) -> Result<Description> {
        self.none()
    }

    fn versions(&self, _: &str, _: Deadline) -> Result<Vec<Version>> {
        self.none()
    }

    fn list(&self, _: Option<&PageToken>, _: Deadline) -> Result<Page> {
        self.none()
    }

    fn tag(&self, _: &str, _: &BTreeMap<String, String>, _: Deadline) -> Result<()> {
        self.none()
    }

    fn stage(&self, _: &str, _: &str, _: &VersionId, _: Deadline) -> Result<()> {
        self.none()
    }

    fn delete(&self, _: &str, _: Deadline) -> Result<()> {
        self.none()
    }

    fn restore(&self, _: &str, _: Deadline) -> Result<()> {
        self.none()
    }

    fn destroy(&self, _: &str, _: Deadline) -> Result<()> {
        self.none()
    }

    fn check(&self, _: Deadline) -> Vec<Probe> {
        Vec::new()
    }
}
