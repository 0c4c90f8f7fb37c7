//! The daemon under a real systemd, and units as its clients.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod booted;
mod common;

use booted::Boot;
use secretfs::effect::{CarryOut, EffectError, Effector, Order, Task, Values};

/// Initialises the store, and lets the units of these tests read what is theirs.
const PREPARE: &str = r#"
secretfs init --system
printf '%s\n' '[credentials]' 'socket = "/run/secretfs/credentials"' >>/etc/secretfs/secretfs.toml
cat >>/etc/secretfs/policy.toml <<'END'
[[role]]
name = "app"
allow = [{ names = ["app/**", "app-key"], levels = ["read"] }]
[[binding]]
id = "units"
role = "app"
unit = ["web.service", "bound.service", "loads.service"]
[[binding]]
id = "program"
role = "app"
uid = "bin"
exe = "/usr/bin/cat"
END
"#;

/// Puts secrets in.
const FILL: &str = r#"
mkdir /secrets/app
printf v1 >/secrets/app/key
printf credential >/secrets/app-key
printf private >/secrets/other
"#;

/// A unit that runs `script` once, with more settings.
fn once(settings: &str, script: &str) -> String {
    format!(
        "[Unit]\nRequires=secretfs.service\nAfter=secretfs.service\n\
         [Service]\nType=oneshot\n{settings}ExecStart=/bin/bash -c '{script}'\n"
    )
}

#[test]
fn the_unit_is_ready_when_the_mount_is_and_units_after_it_read_by_their_own_name() {
    let Some(boot) = Boot::new() else { return };
    let boot = boot
        .unit("web.service", &once("User=daemon\n", "cat /secrets/app/key >&2"))
        .unit("stranger.service", &once("User=daemon\n", "! cat /secrets/app/key"))
        .unit(
            "bound.service",
            &once(
                "User=daemon\nProtectSystem=strict\nPrivateTmp=yes\n\
                 BindReadOnlyPaths=/secrets/app:/run/app-secrets\n",
                "cat /run/app-secrets/key >&2",
            ),
        );
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
claim "active: $(systemctl is-active secretfs)"
claim "type: $(findmnt -no FSTYPE /secrets)"
{FILL}
for unit in web stranger bound; do
    systemctl start $unit && claim "$unit: started" || claim "$unit: failed"
done
claim "web: $(journalctl -u web -o cat | grep -x v1)"
claim "bound: $(journalctl -u bound -o cat | grep -x v1)"
printf v2 >/secrets/app/key
systemctl restart bound
claim "rotated: $(journalctl -u bound -o cat | grep -x v2)"
claim "log: $(secretfs log app/key --unit web.service --json | grep -c allowed)"
claim "journal: $(journalctl -u secretfs -o cat | grep -c serving)"
"#
        ),
    );
    for claim in [
        "active: active",
        "type: fuse.secretfs",
        "web: started",
        "stranger: started",
        "bound: started",
        "web: v1",
        "bound: v1",
        "rotated: v2",
        "log: 1",
    ] {
        claims.have(claim);
    }
}

#[test]
fn a_unit_loads_its_credential_from_the_socket_and_fails_when_it_is_refused() {
    let Some(boot) = Boot::new() else { return };
    let show =
        |name: &str| format!("cat \"$CREDENTIALS_DIRECTORY/{name}\" >&2; touch /run/ran-{name}");
    let boot = boot
        .unit(
            "loads.service",
            &once(
                "DynamicUser=yes\nLoadCredential=app-key:/run/secretfs/credentials\n",
                "cat \"$CREDENTIALS_DIRECTORY/app-key\" >&2",
            ),
        )
        .unit(
            "refused.service",
            &once("LoadCredential=other:/run/secretfs/credentials\n", &show("other")),
        )
        .unit(
            "absent.service",
            &once("LoadCredential=absent:/run/secretfs/credentials\n", &show("absent")),
        )
        .unit("copies.service", &once("LoadCredential=copy:/secrets/app/key\n", &show("copy")));
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{FILL}
for unit in loads refused absent copies; do
    systemctl start $unit && claim "$unit: started" || claim "$unit: failed"
done
claim "loads: $(journalctl -u loads -o cat | grep -x credential)"
claim "copies: $(journalctl -u copies -o cat | grep -x v1)"
claim "ran: $(ls /run | grep ran- | tr '\n' ' ')"
claim "by: $(secretfs log app-key --unit loads.service --json | grep -c allowed)"
claim "denied: $(secretfs log other --unit refused.service --json | grep -c denied)"
"#
        ),
    );
    for claim in [
        "loads: started",
        "refused: failed",
        "absent: failed",
        "copies: started",
        "loads: credential",
        "copies: v1",
        "ran: ran-copy ",
        "by: 1",
        "denied: 1",
    ] {
        claims.have(claim);
    }
}

#[test]
fn a_path_unit_starts_its_service_at_each_new_version_whoever_made_it() {
    let Some(boot) = Boot::new() else { return };
    let boot = boot
        .unit("changed.path", "[Path]\nPathChanged=/secrets/app/key\n")
        .unit(
            "changed.service",
            "[Service]\nType=oneshot\nExecStart=/bin/bash -c 'stat -c %%s /secrets/app/key >>/run/sizes'\n",
        );
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{FILL}
systemctl start changed.path
sizes() {{ [ "$(wc -l </run/sizes 2>/dev/null)" = "$1" ]; }}
idle() {{ [ "$(systemctl is-active changed.service)" = inactive ] && [ "$(systemctl is-active changed.path)" = active ]; }}
# No more than the five starts in ten seconds that systemd takes for a loop.
for n in 1 2 3; do
    printf "%${{n}}0d" 0 >/secrets/app/key
    eventually sizes $n; eventually idle
done
secretfs put --allow-empty app/key </dev/null
eventually sizes 4
claim "sizes: $(tr '\n' ' ' </run/sizes)"
"#
        ),
    );
    claims.have("sizes: 10 20 30 0 ");
}

/// Reads without rest until told to stop; notes errors, wrong bytes and the longest wait.
const READERS: &str = r#"
reader() {
    local worst=0 begun took value
    until [ -e /run/enough ]; do
        begun=${EPOCHREALTIME/./}
        value=$(</secrets/app/key) || echo error >>/run/errors
        [ "$value" = v1 ] || echo "read: $value" >>/run/errors
        took=$((${EPOCHREALTIME/./} - begun))
        [ $took -le $worst ] || worst=$took
        echo >>/run/reads.$1
    done
    echo $worst >>/run/worst
}
start_readers() { set +x; for n in 1 2 3; do : >/run/reads.$n; reader $n & done; set -x; }
# Waits until each has read again.
all_read() { for n in 1 2 3; do local before=$(wc -l </run/reads.$n); eventually more_than $before $n; done; }
more_than() { [ $(wc -l <"/run/reads.$2") -gt "$1" ]; }
main() { systemctl show --property=MainPID --value secretfs; }
follows() { [ "$(main)" != "$1" ] && [ "$(systemctl is-active secretfs)" = active ]; }
the_mount() { grep ' /secrets ' /proc/self/mountinfo | cut -d' ' -f1,3; }
"#;

#[test]
fn restarts_and_kills_in_use_keep_the_mount_and_its_open_files_and_nobody_sees_an_error() {
    let Some(boot) = Boot::new() else { return };
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{READERS}{FILL}
printf old >/secrets/app/held
exec 8</secrets/app/held
printf new >/secrets/app/held
first=$(the_mount)
start_readers
all_read
for n in 1 2 3; do
    systemctl restart secretfs && claim "restarted $n"
    all_read
done
for n in 1 2 3; do
    before=$(main)
    kill -KILL $before
    eventually follows $before && claim "killed $n"
    all_read
done
touch /run/enough
wait
claim "errors: $(cat /run/errors 2>/dev/null)"
claim "worst: $([ $(sort -n /run/worst | tail -1) -lt 1000000 ] && echo below a second || cat /run/worst)"
echo "worst stall in microseconds: $(sort -n /run/worst | tail -1)" >>/out/claims
claim "held: $(cat <&8)"
[ "$first" = "$(the_mount)" ] && claim "the mount is the same"
claim "kept by: $(secretfs status --json | grep -o '"keeper": *"[a-z]*"')"
claim "chain: $(secretfs audit verify >/dev/null && echo whole)"
"#
        ),
    );
    for claim in [
        "restarted 3",
        "killed 3",
        "errors: ",
        "worst: below a second",
        "held: old",
        "the mount is the same",
        "chain: whole",
    ] {
        claims.have(claim);
    }
}

#[test]
fn a_stop_unmounts_and_closes_the_mountpoint_and_a_start_mounts_again() {
    let Some(boot) = Boot::new() else { return };
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{FILL}
exec 8</secrets/app/key
systemctl stop secretfs
claim "state: $(systemctl is-active secretfs) $(systemctl is-failed secretfs)"
claim "mounts: $(grep -c ' /secrets ' /proc/mounts)"
claim "mode: $(stat -c %a /secrets)"
# Fails at once: nobody is left who could answer.
timeout 2 cat <&8; claim "open file: $?"
exec 8<&-
systemctl start secretfs
claim "again: $(cat /secrets/app/key)"
secretfs umount
gone() {{ [ "$(systemctl is-active secretfs)" = inactive ]; }}
eventually gone && claim "unmounted by hand: $(grep -c ' /secrets ' /proc/mounts)"
echo broken >>/etc/secretfs/policy.toml
systemctl start secretfs || claim "a bad policy: not started"
mounts=0
for _ in $(seq 50); do grep -q ' /secrets ' /proc/mounts && mounts=$((mounts + 1)); sleep 0.02; done
claim "a bad policy: mounts seen meanwhile: $mounts"
sed -i '$d' /etc/secretfs/policy.toml
eventually grep -q ' /secrets ' /proc/mounts
claim "mended, and started by itself: $(cat /secrets/app/key)"
"#
        ),
    );
    for claim in [
        "state: inactive inactive",
        "mounts: 0",
        "mode: 0",
        "open file: 1",
        "again: v1",
        "unmounted by hand: 0",
        "a bad policy: not started",
        "a bad policy: mounts seen meanwhile: 0",
        "mended, and started by itself: v1",
    ] {
        claims.have(claim);
    }
}

#[test]
fn a_server_that_hangs_is_replaced_within_the_watchdogs_time_and_two_seconds() {
    let Some(boot) = Boot::new() else { return };
    let boot = boot.unit("secretfs.service.d/soon.conf", "[Service]\nWatchdogSec=1s\n");
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{READERS}{FILL}
for n in 1 2; do
    begun=${{EPOCHREALTIME/./}}
    kill -STOP "$(main)"
    claim "read: $(cat /secrets/app/key) $n"
    took=$((${{EPOCHREALTIME/./}} - begun))
    [ $took -lt 3000000 ] && claim "soon $n" || claim "late $n: $took"
done
"#
        ),
    );
    for claim in ["read: v1 1", "read: v1 2", "soon 1", "soon 2"] {
        claims.have(claim);
    }
}

#[test]
fn the_server_is_an_ordinary_user_without_power_and_the_host_sees_the_mount() {
    let Some(boot) = Boot::new() else { return };
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{READERS}{FILL}
pid=$(main)
of() {{ grep "^$2:" /proc/$1/status | cut -f2; }}
for name in CapEff CapPrm CapBnd CapAmb NoNewPrivs Seccomp; do claim "$name: $(of $pid $name)"; done
claim "user: $(id -nu "$(of $pid Uid)")"
[ "$(readlink /proc/$pid/ns/mnt)" != "$(readlink /proc/1/ns/mnt)" ] && claim "its own mounts"
[ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/1/ns/net)" ] && claim "its own network"
# What it could change of the files that it sees, were it root.
touch /proc/$pid/root/etc/secretfs/x || claim "configuration: refused"
touch /proc/$pid/root/var/x || claim "elsewhere: refused"
touch /proc/$pid/root/var/lib/secretfs/x && claim "state: allowed"
claim "sandbox: $(secretfs status | grep -o 'capabilities.*calls' | tr -d ,)"
claim "store: $(stat -c '%U %a' /var/lib/secretfs/store.redb) $(stat -c '%U %a' /etc/secretfs/root.key)"
claim "by program: $(setpriv --reuid=bin --clear-groups cat /secrets/app/key)"
setpriv --reuid=bin --clear-groups head /secrets/app/key || claim "another program: refused"
secretfs doctor >&2 && claim "doctor: content"
secretfs verify && secretfs backup create /run/backup && claim "the key's file: readable"
systemctl reload secretfs && claim "reloaded"
claim "journal: $(journalctl -u secretfs -o cat | grep -c '^serving')"
observer=$(systemctl list-units --plain --no-legend 'secretfs-observer@*' | cut -d' ' -f1)
observer=$(systemctl show --property=MainPID --value "$observer")
claim "observer: $(of $observer CapEff) $(id -nu "$(of $observer Uid)")"
claim "effector: $(systemctl is-active secretfs-effector.socket)"
"#
        ),
    );
    for claim in [
        "CapEff: 0000000000000000",
        "CapPrm: 0000000000000000",
        "CapBnd: 0000000000000000",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "user: secretfs",
        "its own mounts",
        "its own network",
        "configuration: refused",
        "elsewhere: refused",
        "state: allowed",
        "sandbox: capabilities calls",
        "store: secretfs 600 secretfs 400",
        "by program: v1",
        "another program: refused",
        "doctor: content",
        "the key's file: readable",
        "reloaded",
        "journal: 1",
        "observer: 0000000000080000 secretfs",
        "effector: active",
    ] {
        claims.have(claim);
    }
}

#[test]
fn the_effector_s_unit_tells_units_and_acts_as_other_users() {
    let Some(boot) = Boot::new() else { return };
    // The orders come from this very program, which runs inside too: see `give_orders`.
    let program = std::env::current_exe().unwrap();
    let boot = boot.program("give-orders", &program).unit(
        "told.service",
        "[Service]\nExecStart=/bin/sh -c 'trap \"echo heard >&2\" HUP; while :; do sleep 1 & wait; done'\n\
         ExecReload=/bin/sh -c 'echo reloaded >&2'\n",
    );
    let prepare = format!("{PREPARE}\ncat >/etc/secretfs/rotation.toml <<'END'\n{ORDERS}\nEND");
    let claims = boot.run(
        &prepare,
        r#"
systemctl start told
GIVE_ORDERS=1 give-orders --exact --nocapture give_orders >&2 && claim "the orders are given"
eventually sh -c 'journalctl -u told -o cat | grep -qx heard'
claim "told: $(journalctl -u told -o cat | grep -cx heard) $(journalctl -u told -o cat | grep -cx reloaded)"
"#,
    );
    claims.have("the orders are given");
    claims.have("told: 1 1");
}

#[test]
fn the_effector_s_unit_scans_in_the_caller_s_place() {
    let Some(boot) = Boot::new() else { return };
    let claims = boot.run(
        PREPARE,
        &format!(
            r#"
{READERS}{FILL}
mkdir /run/files
for owner in root daemon; do
    printf 'password = "q8W!zt5#Lp"\n' >/run/files/$owner.env
    chmod 600 /run/files/$owner.env
    chown $owner /run/files/$owner.env
done
cat >/run/ask <<'END'
exec 3<>/secrets/.control/scan; echo "$1" >&3; tr -d ' \n' <&3
END
said=$(bash /run/ask /run/files)
claim "open: $(grep -o '"open":[0-9]*' <<<"$said") $(grep -o '"complete":[a-z]*' <<<"$said")"
claim "whose: $(grep -c '"file":"/run/files/root.env"' <<<"$said")"
said=$(systemd-run --pipe --wait --quiet -p PrivateTmp=yes bash -c \
    'cp /run/files/root.env /tmp/own.env; exec bash /run/ask /tmp')
claim "its own: $(grep -o '"file":"[^"]*"' <<<"$said")"
claim "left: $(secretfs get app/key) $(findmnt -n -o FSTYPE /proc) $(findmnt -n -o FSTYPE /secrets)"
"#
        ),
    );
    for claim in [
        "open: \"open\":1 \"complete\":false",
        "whose: 1",
        "its own: \"file\":\"/tmp/own.env\"",
        "left: v1 proc fuse.secretfs",
    ] {
        claims.have(claim);
    }
}

#[test]
fn a_unit_that_holds_the_old_value_is_restarted_by_its_rotation_and_another_reloaded() {
    let Some(boot) = Boot::new() else { return };
    let boot = boot
        .unit(
            "web.service",
            "[Service]\nUser=daemon\n\
             ExecStart=/bin/bash -c 'read -r value </secrets/app/key || :; echo \"has $value\" >&2; exec sleep 1000'\n",
        )
        .unit(
            "told.service",
            "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'echo reloaded >&2'\n",
        );
    let prepare = format!("{PREPARE}\ncat >/etc/secretfs/rotation.toml <<'END'\n{ROTATION}\nEND");
    let claims = boot.run(
        &prepare,
        &format!(
            r#"
{FILL}
systemctl start web told
eventually sh -c 'journalctl -u web -o cat | grep -qx "has v1"'
claim "holds: $(secretfs holders app/key | grep -c web.service)"
secretfs rotate app/key && claim "rotated"
eventually sh -c '[ "$(journalctl -u web -o cat | grep -c "^has ")" = 2 ]'
eventually sh -c '! secretfs stale | grep -q web.service'
claim "web: $(journalctl -u web -o cat | grep '^has ' | sort -u | wc -l) values"
claim "told: $(journalctl -u told -o cat | grep -cx reloaded)"
"#
        ),
    );
    for claim in ["holds: 1", "rotated", "web: 2 values", "told: 1"] {
        claims.have(claim);
    }
}

/// Boots with files that are kept in `/run/inj` and a consumer of them.
fn run_with_injections(boot: Boot, report: &str) -> booted::Claims {
    let boot = boot.unit(
        "told.service",
        "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'echo reloaded >&2'\n",
    );
    let list = format!("cat >/etc/secretfs/injections.toml <<'END'\n{INJECTIONS}\nEND");
    let prepare = format!("{PREPARE}\nmkdir /run/inj\n{list}");
    boot.run(&prepare, &format!("{READERS}{FILL}{ALL}{report}"))
}

/// `all VALUE` tells whether all files have it, `nothing` whether nothing is left.
const ALL: &str = r#"
set +x
systemctl start told
all() { for name in link copy bind dir/key; do [ "$(cat /run/inj/$name 2>/dev/null)" = "$1" ] || return 1; done; }
nothing() { [ -z "$(ls -A /run/inj)" ] && ! grep -q " /run/inj" /proc/mounts; }
eventually all v1 && claim "placed" || claim "$(secretfs inject list)"
"#;

#[test]
fn injected_files_stay_through_restarts_and_kills_and_go_with_the_list() {
    let Some(boot) = Boot::new() else { return };
    let claims = run_with_injections(
        boot,
        r#"
told() { journalctl -u told -o cat | grep -qx reloaded; }
the_bind() { grep " /run/inj/bind " /proc/self/mountinfo | cut -d" " -f1,3; }
claim "the copy: $(stat -Lc "%U %a" /run/inj/copy)"
bind=$(the_bind)
printf v2 >/secrets/app/key
claim "at once: $(cat /run/inj/bind) $(cat /run/inj/dir/key)"
eventually all v2 && claim "renewed"
eventually told && claim "told"
systemctl restart secretfs
all v2 && claim "restart: all stay"
before=$(main)
kill -KILL $before
all v2 && claim "kill: all stay"
eventually follows $before
printf v3 >/secrets/app/key
eventually all v3 && claim "kill: renewed"
[ "$bind" = "$(the_bind)" ] && claim "the bind is the same"
cat >/etc/secretfs/injections.toml <<'END'
[[file]]
secret = "app/key"
path = "/run/inj/link"
kind = "link"
[[file]]
secret = "app"
path = "/run/inj/dir"
kind = "bind"
END
systemctl reload secretfs
gone() { [ ! -e /run/inj/copy ] && [ ! -e /run/inj/bind ]; }
eventually gone && claim "reload: $(ls /run/inj | tr "\n" " ")"
"#,
    );
    for claim in [
        "placed",
        "the copy: daemon 600",
        "at once: v2 v2",
        "renewed",
        "told",
        "restart: all stay",
        "kill: all stay",
        "kill: renewed",
        "the bind is the same",
        "reload: dir link ",
    ] {
        claims.have(claim);
    }
}

#[test]
fn injected_files_go_with_the_mount_also_those_that_a_new_list_does_not_have() {
    let Some(boot) = Boot::new() else { return };
    let claims = run_with_injections(
        boot,
        r#"
inactive() { [ "$(systemctl is-active secretfs)" = inactive ]; }
systemctl stop secretfs
nothing && claim "stop: nothing is left"
claim "stop: $(systemctl is-active secretfs) $(grep -c secretfs /proc/mounts)"
systemctl start secretfs
eventually all v1 && claim "start: all are back"
umount /secrets
eventually inactive && nothing && claim "umount: nothing is left"
systemctl start secretfs
eventually all v1
# What the list does not have any more, the server has noted.
: >/etc/secretfs/injections.toml
systemctl stop secretfs
nothing && claim "another list: nothing is left"
"#,
    );
    for claim in [
        "placed",
        "stop: nothing is left",
        "stop: inactive 0",
        "start: all are back",
        "umount: nothing is left",
        "another list: nothing is left",
    ] {
        claims.have(claim);
    }
}

/// What is kept in `/run/inj`.
const INJECTIONS: &str = r#"
[[file]]
secret = "app/key"
path = "/run/inj/link"
kind = "link"

[[file]]
secret = "app/key"
path = "/run/inj/copy"
kind = "copy"
owner = "daemon"

[[file]]
secret = "app/key"
path = "/run/inj/bind"
kind = "bind"

[[file]]
secret = "app"
path = "/run/inj/dir"
kind = "bind"

[[consumer]]
name = "told"
secrets = ["app/key"]
notify = [{ kind = "unit", unit = "told.service", action = "reload" }]
"#;

/// How the key of `web.service` is rotated.
const ROTATION: &str = r#"
[[rotation]]
names = ["app/key"]
restart_holders = true
notify = [{ kind = "unit", unit = "told.service", action = "reload" }]
"#;

/// What the effector in the container may do.
const ORDERS: &str = r#"
[[notice]]
kind = "unit"
unit = "told.service"
action = "reload"
[[notice]]
kind = "signal"
unit = "told.service"
signal = "HUP"
[[notice]]
kind = "unit"
unit = "absent.service"
action = "try_restart"
[[notice]]
kind = "unit"
unit = "absent.service"
action = "restart"
[[notice]]
kind = "command"
user = "daemon"
argv = ["/usr/bin/id", "-un"]
"#;

/// The part that runs in the container; elsewhere it does nothing.
#[test]
fn give_orders() {
    if std::env::var_os("GIVE_ORDERS").is_none() {
        return;
    }
    let effector = Effector::at_socket(std::path::Path::new("/run/secretfs-effector"));
    let notices: toml::Table = toml::from_str(ORDERS).unwrap();
    let said: Vec<Result<String, EffectError>> = notices["notice"]
        .as_array()
        .unwrap()
        .iter()
        .map(|notice| {
            let order = Order {
                rotation: "r-1".into(),
                secret: Some("app/key".parse().unwrap()),
                timeout: common::DEADLINE,
                task: Task::Notify(notice.clone().try_into().unwrap()),
            };
            effector.carry_out(&order, &Values::default()).map(|report| report.note)
        })
        .collect();
    let [reloaded, signalled, absent, missing, command] = said.as_slice() else {
        unreachable!("{said:?}")
    };
    assert_eq!(reloaded.as_deref(), Ok("reload of told.service is done"));
    assert_eq!(signalled.as_deref(), Ok("HUP sent to told.service"));
    assert_eq!(absent.as_deref(), Ok("absent.service does not run"));
    assert!(matches!(missing, Err(EffectError::Refused(_))), "{missing:?}");
    assert_eq!(command.as_deref(), Ok("/usr/bin/id: daemon"));
}

#[test]
fn the_unit_s_exposure_is_at_most_2_1() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/secretfs.service");
    let analysed = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=21", unit])
        .output();
    match analysed {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(_) => common::skip("no systemd-analyze here"),
    }
}
