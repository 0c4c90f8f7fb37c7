//! The unit and the container of a process, read from the names of its cgroup.
//!
//! The outermost container counts: what is below it was named by whoever runs inside. Whether a
//! name was given by root at all is for the caller to check, at [`Place::parent`].

use crate::model::Container;

/// Where a process stands in the tree of cgroups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place<'a> {
    /// Without the leading slash; empty for the root.
    path: &'a str,
    hierarchy: Hierarchy,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hierarchy {
    Unified,
    /// The `name=systemd` hierarchy of version 1, which has the units on hybrid systems.
    Systemd,
}

/// A container and the cgroup in which somebody made its cgroup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Claim<'a> {
    pub(super) container: Container,
    parent: &'a str,
}

impl<'a> Place<'a> {
    /// Reads `/proc/TID/cgroup`, see `cgroups(7)`. `None`: no hierarchy that systemd names, or one
    /// that our cgroup namespace does not reach.
    pub(super) fn parse(file: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(file).ok()?;
        let find = |prefix: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| {
                let (_number, rest) = line.split_once(':')?;
                rest.strip_prefix(prefix)?.strip_prefix('/')
            })
        };
        let unified = find(":").map(|path| Self { path, hierarchy: Hierarchy::Unified });
        let systemd =
            find("name=systemd:").map(|path| Self { path, hierarchy: Hierarchy::Systemd });
        let place = match unified {
            Some(place) if !place.path.is_empty() => place,
            other => systemd.or(other)?,
        };
        place.path.split('/').all(|segment| segment != "..").then_some(place)
    }

    /// Returns the path down to the innermost service or scope.
    pub(super) fn unit(&self) -> Option<&'a str> {
        let mut path = self.path;
        loop {
            let name = path.rsplit('/').next().unwrap_or(path);
            let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope"));
            if stem.is_some_and(|stem| !stem.is_empty()) {
                return Some(path);
            }
            path = path.rsplit_once('/')?.0;
        }
    }

    /// Returns the outermost container.
    pub(super) fn container(&self) -> Option<Claim<'a>> {
        let mut start = 0;
        let mut above = "";
        for segment in self.path.split('/') {
            if let Some((runtime, id)) = container(above, segment) {
                let container = Container { runtime: runtime.into(), id: id.into() };
                let parent = self.path.get(..start)?.trim_end_matches('/');
                return Some(Claim { container, parent });
            }
            above = segment;
            start += segment.len() + 1;
        }
        None
    }

    /// Returns the directories of the filesystem that may be the cgroup that holds the claimed one.
    pub(super) fn parents(&self, claim: &Claim<'_>) -> Vec<String> {
        let roots: &[&str] = match self.hierarchy {
            Hierarchy::Unified => &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
            Hierarchy::Systemd => &["/sys/fs/cgroup/systemd"],
        };
        roots.iter().map(|root| format!("{root}/{}", claim.parent)).collect()
    }
}

/// Tells a container by the name of its cgroup and of the one above.
fn container(above: &str, segment: &str) -> Option<(&'static str, String)> {
    let id = |text: &str| {
        let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| text.to_owned())
    };
    let name = |text: &str| (!text.is_empty()).then(|| unescape(text));
    // A scope, a plain cgroup in whatever parent was asked for, or with `--cgroups=split`, as
    // Quadlet has it, the payload's half of the service's own cgroup.
    if let Some(podman) = segment.strip_prefix("libpod-") {
        let podman = podman.strip_suffix(".scope").unwrap_or(podman);
        return id(podman.strip_prefix("payload-").unwrap_or(podman)).map(|id| ("podman", id));
    }
    if let Some(scope) = segment.strip_suffix(".scope") {
        const SCOPES: [(&str, &str); 3] =
            [("docker-", "docker"), ("crio-", "crio"), ("cri-containerd-", "containerd")];
        for (prefix, runtime) in SCOPES {
            if let Some(id) = scope.strip_prefix(prefix).and_then(id) {
                return Some((runtime, id));
            }
        }
        let machine = scope.strip_prefix("machine-").filter(|_| above == "machine.slice")?;
        // libvirt registers its virtual machines with systemd, too.
        return name(machine).filter(|name| !name.starts_with("qemu-")).map(|n| ("nspawn", n));
    }
    if let Some(instance) = segment.strip_prefix("systemd-nspawn@") {
        return instance.strip_suffix(".service").and_then(name).map(|n| ("nspawn", n));
    }
    if let Some(payload) = segment.strip_prefix("lxc.payload.") {
        return (!payload.is_empty()).then(|| ("lxc", payload.to_owned()));
    }
    match above {
        "docker" => id(segment).map(|id| ("docker", id)),
        "lxc" => Some(("lxc", segment.to_owned())),
        _ => None,
    }
}

/// Undoes the escapes of systemd's unit names: `\x2d` is `-`. Others stay as they are.
fn unescape(text: &str) -> String {
    text.replace("\\x2d", "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn units_and_containers_are_told_from_the_lines_that_systems_have() {
        type Case = (String, Option<&'static str>, Option<(&'static str, &'static str)>);
        let cases: Vec<Case> = vec![
            ("0::/system.slice/nginx.service".into(), Some("system.slice/nginx.service"), None),
            ("0::/system.slice/a.service/sub/x".into(), Some("system.slice/a.service"), None),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service".into(),
                Some("user.slice/user-1000.slice/user@1000.service/app.slice/x.service"),
                None,
            ),
            (
                "0::/user.slice/user-0.slice/session-3.scope".into(),
                Some("user.slice/user-0.slice/session-3.scope"),
                None,
            ),
            ("0::/init.scope".into(), Some("init.scope"), None),
            ("0::/".into(), None, None),
            ("0::/system.slice".into(), None, None),
            ("0::/x/.service".into(), None, None),
            ("0::/../../system.slice/nginx.service".into(), None, None),
            (
                "8:pids:/x\n1:name=systemd:/system.slice/a.service\n0::/".into(),
                Some("system.slice/a.service"),
                None,
            ),
            (
                "1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service".into(),
                Some("system.slice/b.service"),
                None,
            ),
            ("4:memory:/system.slice/a.service".into(), None, None),
            (format!("0::/docker/{ID}"), None, Some(("docker", ID))),
            (
                format!("9:name=systemd:/docker/{ID}\n8:cpu:/docker/{OTHER}"),
                None,
                Some(("docker", ID)),
            ),
            (
                format!("0::/machine.slice/libpod-{ID}.scope/container"),
                Some("machine.slice/libpod-*.scope"),
                Some(("podman", ID)),
            ),
            (
                format!("0::/machine.slice/libpod-conmon-{ID}.scope"),
                Some("machine.slice/libpod-conmon-*.scope"),
                None,
            ),
            (
                format!("9:name=systemd:/libpod_parent/libpod-{ID}\n0::/libpod_parent/libpod-{ID}"),
                None,
                Some(("podman", ID)),
            ),
            (format!("0::/parent/libpod-{ID}"), None, Some(("podman", ID))),
            (format!("0::/libpod_parent/libpod-conmon-{ID}"), None, None),
            (
                format!("0::/system.slice/web.service/libpod-payload-{ID}"),
                Some("system.slice/web.service"),
                Some(("podman", ID)),
            ),
            ("0::/libpod_parent/libpod-payload-0011".into(), None, None),
            ("0::/name-of-runc".into(), None, None),
            (
                format!("0::/kubepods.slice/x.slice/crio-{ID}.scope"),
                Some("kubepods.slice/x.slice/crio-*.scope"),
                Some(("crio", ID)),
            ),
            (
                format!("0::/kubepods.slice/x.slice/cri-containerd-{ID}.scope"),
                Some("kubepods.slice/x.slice/cri-containerd-*.scope"),
                Some(("containerd", ID)),
            ),
            (
                format!("0::/system.slice/docker-{ID}.scope"),
                Some("system.slice/docker-*.scope"),
                Some(("docker", ID)),
            ),
            (
                "0::/system.slice/docker-0011.scope".into(),
                Some("system.slice/docker-0011.scope"),
                None,
            ),
            (
                "0::/machine.slice/machine-my\\x2dbox.scope/payload".into(),
                Some("machine.slice/machine-my\\x2dbox.scope"),
                Some(("nspawn", "my-box")),
            ),
            (
                "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope".into(),
                Some("machine.slice/machine-qemu\\x2d1\\x2dvm.scope"),
                None,
            ),
            (
                "0::/machine.slice/systemd-nspawn@box.service/payload".into(),
                Some("machine.slice/systemd-nspawn@box.service"),
                Some(("nspawn", "box")),
            ),
            (
                "0::/lxc.payload.web/system.slice/x.service".into(),
                Some("lxc.payload.web/system.slice/x.service"),
                Some(("lxc", "web")),
            ),
            ("0::/lxc.monitor.web".into(), None, None),
            ("0::/lxc/web".into(), None, Some(("lxc", "web"))),
        ];
        for (file, unit, container) in cases {
            let place = Place::parse(file.as_bytes());
            let found_unit = place.and_then(|place| place.unit());
            let unit = unit.map(|unit| unit.replace('*', ID));
            assert_eq!(found_unit, unit.as_deref(), "{file}");
            let found = place.and_then(|place| place.container());
            let found = found.map(|claim| (claim.container.runtime, claim.container.id));
            assert_eq!(found.as_ref().map(|(r, i)| (&**r, &**i)), container, "{file}");
        }
    }

    #[test]
    fn a_container_within_a_container_is_its_host_s_word_only_outside() {
        let file = format!("0::/system.slice/docker-{ID}.scope/docker/{OTHER}");
        let place = Place::parse(file.as_bytes()).unwrap();
        let claim = place.container().unwrap();
        assert_eq!(&*claim.container.id, ID);
        assert_eq!(place.parents(&claim)[1], "/sys/fs/cgroup/system.slice");
    }

    #[test]
    fn bytes_that_are_no_cgroup_file_give_nothing() {
        for file in [&b""[..], b"\xff", b"0", b"0:", b"0::", b"0::x", b":::", b"0::/\xff\n"] {
            assert_eq!(Place::parse(file), None, "{file:?}");
        }
    }
}
