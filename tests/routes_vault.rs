//! A real `OpenBao` behind a route of a real mount. The server is in its sandbox, and only the effector speaks to it.
#![expect(clippy::unwrap_used, reason = "a test file")]

mod common;
mod servers;
mod site;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{eventually, read, write, write_file};
use servers::OpenBao;
use site::Site;

struct Cloud {
    site: Site,
    bao: OpenBao,
}

impl Cloud {
    /// Mounts a store of which `cloud` is the engine `secret` of a server.
    fn start(route: &str) -> Option<Self> {
        Some(Self::of(OpenBao::start()?, Site::new()?, route))
    }

    fn of(bao: OpenBao, mut site: Site, route: &str) -> Self {
        let token = site.path("token");
        write_file(&token, bao.root.as_bytes());
        fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "[[route]]\npath = \"cloud\"\nbackend = \"bao\"\n{route}\n\
             [backend.bao]\nkind = \"vault\"\naddress = \"{}\"\n\
             [backend.bao.connection]\nca = {:?}\n\
             [backend.bao.auth]\nmethod = \"token\"\ntoken_file = {token:?}\n",
            bao.address(),
            bao.pair.certificate,
        );
        fs::create_dir_all(site.config().parent().unwrap()).unwrap();
        write_file(&site.config(), config.as_bytes());
        site.serve();
        Self { site, bao }
    }

    /// Stores a value with the server's own client.
    fn put(&self, name: &str, value: &str) {
        self.bao.cli(&["kv", "put", &format!("secret/{name}"), &format!("value={value}")]);
    }

    fn reads(&self, name: &str, value: &str) -> bool {
        read(&self.site.secret(name)).is_ok_and(|found| found == value.as_bytes())
    }

    /// Returns what the daemon counts.
    fn metric(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.site.secret(".control/metrics")).unwrap();
        let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix('{').map(str::to_owned);
        let line = text.lines().find_map(of_name).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

#[test]
fn a_thousand_readers_of_a_cold_secret_make_one_request_to_a_real_server() {
    let Some(cloud) = Cloud::start("prefetch = false") else { return };
    cloud.put("key", "canary-7f3a");
    let path = cloud.site.secret("cloud/key");
    let before = cloud.metric("secretfs_backend_requests_total");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..1000)
            .map(|_| {
                let reader = std::thread::Builder::new().stack_size(64 << 10);
                reader.spawn_scoped(scope, || assert_eq!(read(&path).unwrap(), b"canary-7f3a"))
            })
            .collect();
        all.into_iter().for_each(|reader| reader.unwrap().join().unwrap());
    });
    assert_eq!(cloud.metric("secretfs_backend_requests_total"), before + 1);
}

#[test]
fn what_is_written_on_either_side_is_read_on_the_other() {
    let Some(cloud) = Cloud::start("fresh_seconds = 2") else { return };
    cloud.put("app/db/password", "one");
    eventually("it is fetched", || cloud.reads("cloud/app/db/password", "one"));
    assert_eq!(common::list(&cloud.site.secret("cloud/app/db")).unwrap(), ["password"]);
    cloud.put("app/db/password", "two");
    eventually("the change is fetched", || cloud.reads("cloud/app/db/password", "two"));
    write(&cloud.site.secret("cloud/app/db/password"), b"three").unwrap();
    let there = || cloud.bao.cli(&["kv", "get", "-field=value", "secret/app/db/password"]);
    assert_eq!(there(), "three");
    fs::remove_file(cloud.site.secret("cloud/app/db/password")).unwrap();
    let listed = common::list(&cloud.site.secret(".control/trash")).unwrap();
    let trashed = cloud.site.secret(".control/trash").join(&listed[0]);
    fs::rename(trashed, cloud.site.secret("cloud/app/db/password")).unwrap();
    assert_eq!(there(), "three");
    assert!(cloud.reads("cloud/app/db/password", "three"));
    cloud.site.assert_whole();
}

#[test]
fn reads_go_on_while_the_server_is_sealed_and_the_daemon_is_killed_and_then_all_is_fresh() {
    let Some(mut cloud) = Cloud::start("fresh_seconds = 2") else { return };
    cloud.put("key", "old");
    eventually("it is fetched", || cloud.reads("cloud/key", "old"));
    cloud.bao.seal();
    let stale = || xattr::get(cloud.site.secret("cloud/key"), "user.secretfs.stale_seconds");
    eventually("it is stale", || stale().unwrap().is_some());
    assert!(cloud.reads("cloud/key", "old"));
    cloud.site.kill();
    cloud.site.serve();
    assert!(cloud.reads("cloud/key", "old"), "after a restart");
    let cold = read(&cloud.site.secret("cloud/cold")).unwrap_err();
    assert_eq!(cold, libc::EHOSTUNREACH);
    eventually("it is known to be down", || cloud.metric("secretfs_backend_up") == 0);
    cloud.bao.unseal();
    cloud.put("key", "new");
    eventually("it is fresh again", || cloud.reads("cloud/key", "new"));
    let went_and_came: Vec<_> = cloud
        .site
        .audit()
        .into_iter()
        .filter(|line| line["action"] == "backend_connection")
        .map(|line| line["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        went_and_came.len() >= 2 && went_and_came.last().unwrap() == "allowed",
        "{went_and_came:?}"
    );
}

#[test]
fn the_server_is_stopped_for_ten_minutes_the_daemon_killed_meanwhile_and_one_refresh_makes_all_fresh()
 {
    let (Some(bao), Some(mut site)) = (OpenBao::start_lasting(), Site::new()) else { return };
    site.simulate_time();
    let mut cloud = Cloud::of(bao, site, "");
    let names: Vec<String> = (0..20).map(|number| format!("app/key{number}")).collect();
    names.iter().for_each(|name| cloud.put(name, "old"));
    let all = |cloud: &Cloud, value: &str| {
        names.iter().all(|name| cloud.reads(&format!("cloud/{name}"), value))
    };
    // A turn of the refresh has the list, and one of before may be under way.
    cloud.site.pass(Duration::from_secs(300));
    eventually("all are fetched", || all(&cloud, "old"));
    cloud.bao.stop();
    for minute in 0..10 {
        cloud.site.pass(Duration::from_secs(60));
        assert!(all(&cloud, "old"), "minute {minute}");
        if minute == 5 {
            eventually("it is known to be down", || cloud.metric("secretfs_backend_up") == 0);
            cloud.site.kill();
            cloud.site.serve();
            assert!(all(&cloud, "old"), "after the restart");
        }
    }
    let stale = xattr::get(cloud.site.secret("cloud/app/key0"), "user.secretfs.stale_seconds");
    let stale: u64 = String::from_utf8(stale.unwrap().unwrap()).unwrap().parse().unwrap();
    assert!((200..=600).contains(&stale), "{stale}");
    eventually("it is known to be down", || cloud.metric("secretfs_backend_up") == 0);
    cloud.bao.start_again();
    names.iter().for_each(|name| cloud.put(name, "new"));
    let before = cloud.metric("secretfs_backend_requests_total");
    // Longer than it is left alone for, and no time for another turn after that.
    cloud.site.pass(Duration::from_secs(60));
    eventually("all are fresh", || all(&cloud, "new"));
    let fresh = |name| xattr::get(cloud.site.secret(name), "user.secretfs.stale_seconds").unwrap();
    assert_eq!(fresh("cloud/app/key0"), None);
    let requests = cloud.metric("secretfs_backend_requests_total") - before;
    assert!(requests < 30, "{requests} requests for 20 secrets and a list");
    cloud.site.assert_whole();
}
