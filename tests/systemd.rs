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
