//! The policy line by line: each level, each kind of condition, each kind of mistake.

use std::sync::Arc;

use super::*;
use crate::model::{Container, Exe, Gid, Process, SecretType};

/// `www` is 33 and `tls` is 40.
struct Accounts;

impl Users for Accounts {
    fn uid_of(&self, name: &str) -> Option<Uid> {
        (name == "www").then_some(Uid(33))
    }
    fn gid_of(&self, name: &str) -> Option<Gid> {
        (name == "tls").then_some(Gid(40))
    }
}

struct Used(u32);

impl Uses for Used {
    fn used(&self, _binding: &str) -> u32 {
        self.0
    }
}

/// A Wednesday.
const NOON: &str = "2026-01-07T12:00:00Z";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Policy {
    Policy::parse(text, &Accounts).unwrap()
}

fn context(now: &str) -> Context<'static> {
    Context {
        now: now.parse().unwrap(),
        uptime: Uptime::UNKNOWN,
        elevated: false,
        quarantined: false,
        uses: &NothingUsed,
    }
}

fn ids(uid: u32, gid: u32) -> Caller {
    Caller::with_ids(Uid(uid), Gid(gid))
}

/// A caller of whom everything is known.
fn known(uid: u32) -> Caller {
    let exe = Exe { path: "/usr/bin/app".into(), sha256: Some([0xab; 32]) };
    let process = Process {
        pid: 7,
        started: "2026-01-07T11:59:50Z".parse().unwrap(),
        comm: b"app".to_vec(),
        exe: Some(exe.clone()),
        unit: Some("system.slice/app.service".into()),
        container: Some(Container { runtime: "podman".into(), id: ID.into() }),
    };
    Caller {
        groups: Some(Arc::from([Gid(40), Gid(41)])),
        tid: Some(8),
        process: Some(Arc::new(process)),
        exe_now: Some(Arc::new(exe)),
        ..ids(uid, 100)
    }
}

fn may(policy: &Policy, caller: &Caller, level: Level, name: &str, now: &str) -> bool {
    let name = name.parse().unwrap();
    let target = Target::Secret { name: &name, attributes: None };
    policy.decide(caller, level, target, &context(now)).is_allowed()
}

/// Returns the levels as `rwda`.
fn rights(policy: &Policy, caller: &Caller, name: &str) -> String {
    let letters = Level::ALL.into_iter().zip(["r", "w", "d", "a"]);
    letters.filter(|(level, _)| may(policy, caller, *level, name, NOON)).map(|(_, c)| c).collect()
}

/// One role over `a/*`, with a binding of these conditions.
fn bound(conditions: &str) -> Policy {
    parse(&format!(
        "[[role]]\nname = \"r\"\nallow = [{{ names = [\"a/*\"], levels = [\"read\"] }}]\n\
         [[binding]]\nid = \"b\"\nrole = \"r\"\n{conditions}\n"
    ))
}

#[test]
fn each_level_is_its_own_and_admin_is_all_of_them() {
    for (levels, expected) in [
        ("\"read\"", "r"),
        ("\"write\"", "w"),
        ("\"delete\"", "d"),
        ("\"admin\"", "rwda"),
        ("\"read\", \"delete\"", "rd"),
    ] {
        let policy = parse(&format!(
            "[[role]]\nname = \"r\"\nallow = [{{ names = \"a/*\", levels = [{levels}] }}]\n\
             [[binding]]\nrole = \"r\"\nuid = 5"
        ));
        assert_eq!(rights(&policy, &ids(5, 5), "a/x"), expected);
        assert_eq!(rights(&policy, &ids(5, 5), "b/x"), "");
        assert_eq!(rights(&policy, &ids(0, 0), "a/x"), "", "root is a caller like any other");
    }
}

#[test]
fn a_condition_holds_for_whom_it_names_and_for_nobody_of_whom_it_is_not_known() {
    let digest = "ab".repeat(32);
    let other_digest = "ac".repeat(32);
    let cases = [
        ("uid = 5".to_owned(), true, true),
        ("uid = [\"www\", 5]".into(), true, true),
        ("uid = \"www\"".into(), false, false),
        ("gid = 100".into(), true, true),
        ("gid = \"tls\"".into(), true, false),
        ("gid = 42".into(), false, false),
        ("unit = \"app.service\"".into(), true, false),
        ("unit = \"system.slice/app.service\"".into(), true, false),
        ("unit = \"user.slice/app.service\"".into(), false, false),
        ("unit = \"ap.service\"".into(), false, false),
        ("container = \"podman:0123456789ab\"".into(), true, false),
        (format!("container = \"podman:{ID}\""), true, false),
        ("container = \"docker:0123456789ab\"".into(), false, false),
        ("container = \"podman:123456789abc\"".into(), false, false),
        ("uid = 5\nexe = \"/usr/bin/app\"".into(), true, false),
        ("uid = 5\nexe = [\"/bin/x\", \"/usr/bin/app\"]".into(), true, false),
        ("uid = 5\nexe = \"/usr/bin//app\"".into(), false, false),
        (format!("uid = 5\nexe_sha256 = \"{digest}\""), true, false),
        (format!("uid = 5\nexe_sha256 = \"{other_digest}\""), false, false),
        ("uid = 5\nafter_start = \"11s\"".into(), true, false),
        ("uid = 5\nafter_start = \"10s\"".into(), false, false),
        ("uid = 5\nuntil = 2026-01-07T12:00:01Z".into(), true, true),
        ("uid = 5\nuntil = 2026-01-07T12:00:00Z".into(), false, false),
        ("uid = 5\nunit = \"x.service\"".into(), false, false),
        ("uid = 6\nunit = \"app.service\"".into(), false, false),
        ("uid = 5\nunit = \"app.service\"\ngid = 41".into(), true, false),
    ];
    for (conditions, of_known, of_unknown) in cases {
        let policy = bound(&conditions);
        assert_eq!(rights(&policy, &known(5), "a/x") == "r", of_known, "{conditions}");
        assert_eq!(rights(&policy, &ids(5, 100), "a/x") == "r", of_unknown, "{conditions}");
    }
}

#[test]
fn hours_and_days_hold_in_their_time_zone_and_a_night_belongs_to_its_evening() {
    let office = "hours = \"08:00-18:00\"\ndays = [\"mon\", \"wed\"]";
    let night = "hours = \"22:00-06:00\"\ndays = \"fri\"";
    let cases = [
        (office, "2026-01-07T08:00:00Z", true),
        (office, "2026-01-07T07:59:59Z", false),
        (office, "2026-01-07T17:59:59Z", true),
        (office, "2026-01-07T18:00:00Z", false),
        (office, "2026-01-08T12:00:00Z", false),
        (night, "2026-01-09T22:00:00Z", true),
        (night, "2026-01-10T05:59:00Z", true),
        (night, "2026-01-10T06:00:00Z", false),
        (night, "2026-01-09T05:00:00Z", false),
        (night, "2026-01-10T22:00:00Z", false),
        ("days = \"wed\"", "2026-01-07T23:59:59Z", true),
        ("hours = [\"00:00-01:00\", \"23:00-24:00\"]", "2026-01-07T23:30:00Z", true),
        ("hours = [\"00:00-01:00\", \"23:00-24:00\"]", "2026-01-07T22:30:00Z", false),
    ];
    for (conditions, now, expected) in cases {
        let policy = bound(&format!("uid = 5\ntimezone = \"UTC\"\n{conditions}"));
        let found = may(&policy, &ids(5, 5), Level::Read, "a/x", now);
        assert_eq!(found, expected, "{conditions} at {now}");
    }
}

#[test]
fn a_process_that_seems_to_start_in_the_future_is_not_young_for_ever() {
    let policy = bound("uid = 5\nafter_start = \"1h\"");
    assert!(!may(&policy, &known(5), Level::Read, "a/x", "2026-01-01T00:00:00Z"));
    assert!(may(&policy, &known(5), Level::Read, "a/x", "2026-01-07T11:59:49.5Z"));
}

#[test]
fn a_deny_wins_over_every_allow_in_whatever_order_and_names_its_levels_only() {
    let roles = "[[role]]\nname = \"all\"\nallow = [{ names = \"**\", levels = \"admin\" }]\n\
                 [[role]]\nname = \"no\"\ndeny = [{ names = \"a/*\", levels = \"read\" }]\n";
    for order in ["[\"all\", \"no\"]", "[\"no\", \"all\"]"] {
        let policy = parse(&format!("{roles}[[binding]]\nroles = {order}\nuid = 5"));
        assert_eq!(rights(&policy, &ids(5, 5), "a/x"), "wda");
        assert_eq!(rights(&policy, &ids(5, 5), "b/x"), "rwda");
        let name = "a/x".parse().unwrap();
        let target = Target::Secret { name: &name, attributes: None };
        let levels = policy.levels(&ids(5, 5), target, &context(NOON));
        assert!(!levels.allow(Level::Read), "the set must not be wider than the decisions");
    }
}

#[test]
fn a_deny_also_takes_what_everybody_has() {
    let policy = parse(
        "default_level = [\"read\"]\n\
         [[role]]\nname = \"no\"\ndeny = [{ names = \"a/**\", levels = [\"read\"] }]\n\
         [[binding]]\nrole = \"no\"\nuid = 5",
    );
    assert_eq!(rights(&policy, &ids(5, 5), "a/x"), "");
    assert_eq!(rights(&policy, &ids(5, 5), "b"), "r");
    assert_eq!(rights(&policy, &ids(6, 6), "a/x"), "r");
    assert!(!policy.may_enter(&ids(5, 5), &"a".parse().unwrap(), &context(NOON)));
    assert!(policy.may_enter(&ids(6, 6), &"a".parse().unwrap(), &context(NOON)));
}

#[test]
fn an_empty_policy_allows_nobody_anything() {
    let policy = parse("");
    assert_eq!(rights(&policy, &known(0), "a/x"), "");
    let store = policy.decide(&known(0), Level::Admin, Target::Store, &context(NOON));
    assert_eq!(store, Decision::Denied { rule: None, reason: Reason::NoRule });
    assert!(!policy.may_enter(&known(0), &"a".parse().unwrap(), &context(NOON)));
}

#[test]
fn a_decision_names_its_binding_its_role_and_its_rule() {
    let policy = parse(
        "[[role]]\nname = \"r\"\nallow = [{ names = \"x\", levels = \"read\" }, { names = \"y\", levels = \"read\" }]\n\
         deny = [{ names = \"z\", levels = \"read\" }]\n\
         [[binding]]\nrole = \"r\"\nuid = 4\n[[binding]]\nrole = \"r\"\nuid = 5",
    );
    let decide = |name: &str| {
        let name = name.parse().unwrap();
        let target = Target::Secret { name: &name, attributes: None };
        policy.decide(&ids(5, 5), Level::Read, target, &context(NOON))
    };
    assert_eq!(decide("y"), Decision::Allowed { rule: "#2: r allow 2".into(), consumes: None });
    let denied =
        Decision::Denied { rule: Some("#2: r deny 1".into()), reason: Reason::DeniedByRule };
    assert_eq!(decide("z"), denied);
}

#[test]
fn uses_are_taken_only_where_nothing_unlimited_allows_and_end() {
    let limited = "[[role]]\nname = \"r\"\nallow = [{ names = \"a\", levels = \"read\" }]\n\
         deny = [{ names = \"b\", levels = \"read\" }]\n\
         [[role]]\nname = \"all\"\nallow = [{ names = \"**\", levels = \"read\" }]\n\
         [[binding]]\nid = \"three\"\nrole = \"r\"\nuid = [5, 6]\nmax_uses = 3\n\
         [[binding]]\nid = \"free\"\nrole = \"all\"\nuid = 6";
    let policy = parse(limited);
    let decide = |uid, name: &str, used| {
        let name = name.parse().unwrap();
        let target = Target::Secret { name: &name, attributes: None };
        let uses = &Used(used);
        policy.decide(&ids(uid, 5), Level::Read, target, &Context { uses, ..context(NOON) })
    };
    let three: Option<Arc<str>> = Some("three".into());
    let rule: Arc<str> = "three: r allow 1".into();
    assert_eq!(decide(5, "a", 2), Decision::Allowed { rule: rule.clone(), consumes: three });
    let reason = Reason::UsedUp;
    assert_eq!(decide(5, "a", 3), Decision::Denied { rule: Some(rule), reason });
    let free: Arc<str> = "free: all allow 1".into();
    assert_eq!(decide(6, "a", 0), Decision::Allowed { rule: free, consumes: None });
    assert!(!decide(6, "b", 3).is_allowed(), "denials outlive the uses");
}

#[test]
fn the_store_is_for_admins_over_everything_alone() {
    let cases = [
        ("allow = [{ names = \"**\", levels = \"admin\" }]", true),
        ("allow = [{ names = [\"x\", \"**\"], levels = \"admin\" }]", true),
        ("allow = [{ names = \"**\", levels = [\"read\", \"write\", \"delete\"] }]", false),
        ("allow = [{ names = \"*/**\", levels = \"admin\" }]", false),
        ("allow = [{ tags = \"x\", levels = \"admin\" }]", false),
        ("allow = [{ names = \"**\", tags = \"x\", levels = \"admin\" }]", false),
        (
            "allow = [{ names = \"**\", levels = \"admin\" }]\ndeny = [{ names = \"**\", levels = \"admin\" }]",
            false,
        ),
        (
            "allow = [{ names = \"**\", levels = \"admin\" }]\ndeny = [{ names = \"a\", levels = \"admin\" }]",
            true,
        ),
    ];
    for (rules, expected) in cases {
        let policy = parse(&format!(
            "default_level = \"admin\"\n[[role]]\nname = \"r\"\n{rules}\n[[binding]]\nrole = \"r\"\nuid = 5"
        ));
        let decision = policy.decide(&ids(5, 5), Level::Admin, Target::Store, &context(NOON));
        assert_eq!(decision.is_allowed(), expected, "{rules}");
    }
}

#[test]
fn rules_by_attributes_match_what_is_known_to_have_them() {
    let policy = parse(
        "[[role]]\nname = \"r\"\nallow = [{ names = \"a/*\", tags = [\"s\", \"t\"], types = \"ssh_key\", levels = \"read\" }]\n\
         [[binding]]\nrole = \"r\"\nuid = 5",
    );
    let with = |secret_type, tag: &str| Attributes {
        secret_type,
        tags: vec![tag.into()],
        ..Attributes::default()
    };
    let name = "a/x".parse().unwrap();
    let allowed = |attributes: Option<&Attributes>| {
        let target = Target::Secret { name: &name, attributes };
        policy.decide(&ids(5, 5), Level::Read, target, &context(NOON)).is_allowed()
    };
    assert!(allowed(Some(&with(SecretType::SshKey, "t"))));
    assert!(!allowed(Some(&with(SecretType::SshKey, "u"))));
    assert!(!allowed(Some(&with(SecretType::ApiKey, "t"))));
    assert!(!allowed(None));
    assert!(policy.has_attribute_rules(&ids(5, 5), &context(NOON)));
    assert!(!policy.has_attribute_rules(&ids(6, 5), &context(NOON)));
    assert!(!policy.may_enter(&ids(5, 5), &"a".parse().unwrap(), &context(NOON)));
}

#[test]
fn only_facts_that_some_binding_asks_for_are_needed() {
    let digest = format!("uid = 1\nexe_sha256 = \"{}\"", "ab".repeat(32));
    let needs = |groups, exe, exe_sha256| Needs { groups, exe, exe_sha256, ..Needs::default() };
    let process = Needs { process: true, ..Needs::default() };
    assert_eq!(bound("uid = 1\nunit = \"a.service\"").needs(), process);
    assert_eq!(bound("gid = 1").needs(), needs(true, false, false));
    assert_eq!(bound("uid = 1\nexe = \"/x\"").needs(), needs(false, true, false));
    assert_eq!(bound(&digest).needs(), needs(false, true, true));
}

#[test]
fn a_bare_template_unit_stands_in_the_slice_that_systemd_gives_it() {
    let policy = bound("unit = \"my-db@15.service\"");
    let mut caller = known(5);
    let mut process = Process::clone(caller.process.as_ref().unwrap());
    process.unit = Some("system.slice/system-my\\x2ddb.slice/my-db@15.service".into());
    caller.process = Some(Arc::new(process));
    assert_eq!(rights(&policy, &caller, "a/x"), "r");
}

#[test]
fn an_explanation_names_the_rule_and_what_failed_in_the_bindings_that_were_near() {
    let policy = bound("uid = 5\nunit = \"other.service\"");
    let name = "a/x".parse().unwrap();
    let target = Target::Secret { name: &name, attributes: None };
    let told = policy.explain(&known(5), target, &context(NOON));
    assert!(told.levels.iter().all(|level| !level.allowed && level.rule.is_none()));
    let near = &told.bindings[0];
    assert_eq!((&*near.binding, near.line, near.holds), ("b", Some(4), false));
    assert_eq!(near.failed, ["unit system.slice/other.service: it is system.slice/app.service"]);
    assert_eq!(near.rules, ["allow read on names a/*"]);
    let unknown = policy.explain(&ids(5, 5), target, &context(NOON));
    assert_eq!(unknown.bindings[0].failed, ["unit system.slice/other.service: it is not known"]);
    serde_json::to_string(&told).unwrap();
}

#[test]
fn expectations_say_whether_the_policy_means_what_its_author_does() {
    let text = "[[role]]\nname = \"web\"\nallow = [{ names = \"prod/*\", levels = \"read\" }]\n\
        [[role]]\nname = \"admin\"\nallow = [{ names = \"**\", levels = \"admin\" }]\n\
        [[binding]]\nrole = \"web\"\nuid = \"www\"\nunit = \"nginx.service\"\nafter_start = \"30s\"\n\
        [[binding]]\nrole = \"admin\"\nuid = 0\n";
    let expect = |caller: &str, levels: &str| {
        let text = format!(
            "{text}[[expect]]\ncaller = {caller}\nsecret = \"prod/x\"\nlevels = {levels}\n"
        );
        let result = parse(&text).run_expectations(NOON.parse().unwrap()).remove(0);
        assert_eq!(result.passed, result.explanation.is_none());
        assert_eq!(result.line, 15);
        result.passed
    };
    let young = "{ uid = \"www\", unit = \"nginx.service\", started_ago = \"10s\" }";
    assert!(expect(young, "[\"read\"]"));
    assert!(!expect(young, "[]"));
    assert!(!expect(young, "[\"read\", \"write\"]"));
    assert!(expect("{ uid = \"www\", unit = \"nginx.service\", started_ago = \"30s\" }", "[]"));
    assert!(expect("{ uid = \"www\" }", "[]"));
    assert!(expect("{ uid = 0 }", "[\"admin\"]"));
    assert!(expect("{ uid = 0 }", "[\"read\", \"write\", \"delete\", \"admin\"]"));
    assert!(!expect("{ uid = 0 }", "[\"read\", \"admin\"]"));
}

#[test]
fn the_first_policy_makes_its_admins_and_nobody_else() {
    let policy = parse(&initial(&[Uid(0), Uid(1000)]));
    assert_eq!(rights(&policy, &ids(1000, 5), "a/x"), "rwda");
    assert_eq!(rights(&policy, &ids(1001, 0), "a/x"), "");
    assert!(policy.decide(&ids(0, 0), Level::Admin, Target::Store, &context(NOON)).is_allowed());
    assert_eq!(rights(&parse(&initial(&[])), &ids(0, 0), "a/x"), "");
}

#[test]
fn the_examples_in_the_first_policy_are_a_policy() {
    let text = initial(&[Uid(0)]);
    let example = text.split("\n# [[role]]").nth(1).unwrap();
    let example = format!("\n# [[role]]{example}").replace("What", "#What").replace("\n# ", "\n");
    let example =
        example.replace("www-data", "www").replace("\n#\n", "\n").replace("\n#What", "\n#");
    let policy = parse(&example);
    assert!(policy.run_expectations(NOON.parse().unwrap()).iter().all(|result| result.passed));
}

#[test]
fn a_bad_policy_is_refused_with_the_place_and_what_was_expected() {
    const ROLE: &str = "[[role]]\nname = \"r\"\nallow = [{ names = \"a\", levels = \"read\" }]\n";
    let binding = |lines: &str| format!("{ROLE}[[binding]]\nrole = \"r\"\n{lines}");
    let rule = |rule: &str| format!("[[role]]\nname = \"r\"\nallow = [{{ {rule} }}]\n");
    let cases: Vec<(String, usize, usize, &str)> = vec![
        ("rolle = 1".into(), 1, 1, "unknown key `rolle` in a policy: use default_level"),
        ("default_level = [\"read\", \"rad\"]".into(), 1, 26, "use read, write, delete or admin"),
        ("[[role]]\nname = 5".into(), 2, 8, "expected a string, found a value of type integer"),
        ("[[role]]\nname = \"a b\"".into(), 2, 8, "is no name"),
        ("[[role]]\nname = \"r\"".into(), 1, 1, "a role needs at least one rule"),
        (format!("{ROLE}{ROLE}"), 5, 8, "two roles \"r\""),
        (rule("names = [\"ok\", \"a//b\"], levels = \"read\""), 3, 27, "empty segment"),
        (rule("names = \"a**\", levels = \"read\""), 3, 20, "must stand alone"),
        (rule("names = \"a\""), 3, 10, "a rule needs `levels`"),
        (rule("names = \"a\", levels = []"), 3, 34, "`levels` is empty"),
        (rule("levels = \"read\""), 3, 10, "must say which secrets"),
        (rule("types = \"ssh\", levels = \"read\""), 3, 20, "use api_key"),
        (rule("name = \"a\", levels = \"read\""), 3, 12, "unknown key `name` in a rule"),
        (binding("uid = 1\nuser = 2"), 7, 1, "unknown key `user` in a binding"),
        (binding("uid = [1, \"nobody-here\"]"), 6, 11, "there is no user \"nobody-here\""),
        (binding("gid = -1"), 6, 7, "-1 is out of range"),
        (binding("uid = 4294967295"), 6, 7, "no id at all"),
        (binding("uid = []"), 6, 7, "`uid` is empty"),
        (binding("exe = \"/usr/bin/x\""), 6, 7, "exe alone can be forged"),
        (binding("hours = \"08:00-18:00\""), 4, 1, "must say whom"),
        (binding("uid = 1\nexe = \"x\""), 7, 7, "no absolute path"),
        (binding("uid = 1\nexe_sha256 = \"ab\""), 7, 14, "64 hexadecimal digits"),
        (binding("unit = \"nginx\""), 6, 8, "is no unit"),
        (binding("container = \"podman:web\""), 6, 13, "at least 12"),
        (binding("container = \"rkt:web\""), 6, 13, "is no container"),
        (binding("uid = 1\nmax_uses = 3"), 7, 12, "`max_uses` needs an `id`"),
        (binding("uid = 1\nid = \"x\"\nmax_uses = 0"), 8, 12, "out of range"),
        (binding("uid = 1\nhours = \"8-18\""), 7, 9, "write it as \"08:00-18:00\""),
        (binding("uid = 1\nhours = \"08:00-08:00\""), 7, 9, "has no length"),
        (binding("uid = 1\ndays = [\"mon\", \"Tuesday\"]"), 7, 16, "use mon, tue"),
        (binding("uid = 1\ntimezone = \"UTC\""), 7, 12, "needs `hours` or `days`"),
        (binding("uid = 1\nuntil = 2026-12-31"), 7, 9, "with an offset is needed"),
        (binding("uid = 1\nuntil = \"2026-12-31T00:00:00Z\""), 7, 9, "expected a date and time"),
        (binding("uid = 1\nafter_start = \"soon\""), 7, 15, "is no duration"),
        (binding("uid = 1\nroles = [\"r\"]"), 7, 9, "either `role` or `roles`"),
        (
            format!("{ROLE}[[binding]]\nuid = 1\nroles = [\"r\", \"s\"]"),
            6,
            15,
            "no role \"s\"; the roles are: r",
        ),
        (format!("{ROLE}[[binding]]\nuid = 1"), 4, 1, "needs `role` or `roles`"),
        (binding("uid = 1\nbreak_glass = true"), 7, 15, "expected a string"),
        (binding("uid = 1\nid = \"x\"\nmax_uses = 1\nbreak_glass = \"1h\""), 9, 15, "for a time"),
        ("[[guard]]\napprovers = 1".into(), 1, 1, "a guard needs `names`"),
        ("[[guard]]\nnames = \"a\"".into(), 1, 1, "a guard needs `approvers` or"),
        ("[[guard]]\nnames = \"a\"\napprovers = 0".into(), 3, 13, "out of range"),
        ("[[guard]]\nnames = \"a\"\nlevels = []\napprovers = 1".into(), 3, 10, "is empty"),
        (
            "[[expect]]\ncaller = { uid = 1, pid = 2 }\nsecret = \"a\"\nlevels = []".into(),
            2,
            21,
            "unknown key `pid`",
        ),
        (
            "[[expect]]\ncaller = { uid = 1 }\nsecret = \"a/../b\"\nlevels = []".into(),
            3,
            10,
            "starts with a dot",
        ),
        ("default_level = []\ndefault_level = []".into(), 2, 1, "duplicate key"),
        (rule("tags = \"\u{e4}\", names = \"a//b\", levels = \"read\""), 3, 32, "empty segment"),
    ];
    for (text, line, column, message) in cases {
        let error = Policy::parse(&text, &Accounts).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text}\n{error}");
        assert!(error.message.contains(message), "{text}\n{error}");
    }
}

#[test]
fn the_manager_gets_for_a_unit_what_names_a_unit_and_nothing_that_is_root_s() {
    let policy = parse(
        r#"
        [[role]]
        name = "all"
        allow = [{ names = ["**"], levels = ["admin"] }]
        [[role]]
        name = "app"
        allow = [{ names = ["app/*"], levels = ["read"] }]
        [[role]]
        name = "never"
        deny = [{ names = ["app/locked"], levels = ["read"] }]
        [[binding]]
        role = "all"
        uid = [7]
        [[binding]]
        role = "app"
        unit = "app.service"
        [[binding]]
        role = "never"
        uid = [7]
        "#,
    );
    let manager = Caller { for_unit: true, ..known(7) };
    let cases = [("app/key", "r", "rwda"), ("app/locked", "", "wda"), ("other", "", "rwda")];
    for (name, unit, itself) in cases {
        assert_eq!(rights(&policy, &manager, name), unit, "{name}");
        assert_eq!(rights(&policy, &known(7), name), itself, "{name}");
    }
}

#[test]
fn a_guard_keeps_its_levels_from_every_rule_from_admins_and_from_what_everybody_has() {
    let policy = parse(
        r#"
        default_level = ["read"]
        [[role]]
        name = "admin"
        allow = [{ names = ["**"], levels = ["admin"] }]
        [[binding]]
        role = "admin"
        uid = [0]
        [[guard]]
        names = ["root/**"]
        levels = ["read"]
        approvers = 1
        [[guard]]
        names = ["root/deep/*"]
        approvers = 2
        "#,
    );
    assert_eq!(rights(&policy, &ids(0, 0), "other"), "rwda");
    assert_eq!(rights(&policy, &ids(0, 0), "root/x"), "wd", "admin would imply it");
    assert_eq!(rights(&policy, &ids(0, 0), "root/deep/x"), "");
    assert_eq!(rights(&policy, &ids(5, 5), "other"), "r");
    assert_eq!(rights(&policy, &ids(5, 5), "root/x"), "");
    let store = policy.decide(&ids(0, 0), Level::Admin, Target::Store, &context(NOON));
    assert!(store.is_allowed());
    let name = "root/x".parse().unwrap();
    let target = Target::Secret { name: &name, attributes: None };
    let denied = policy.decide(&ids(0, 0), Level::Read, target, &context(NOON));
    let rule = Some("guard 1".into());
    assert_eq!(denied, Decision::Denied { rule, reason: Reason::NeedsApproval });
    let told = policy.explain(&ids(0, 0), target, &context(NOON));
    assert_eq!(told.levels[0].text.as_deref(), Some("read on names root/**: 1 approver"));
    assert_eq!(policy.approvers([Level::Read].into_iter().collect(), target), 1);
}

#[test]
fn a_binding_for_emergencies_says_nothing_by_itself_and_offers_what_it_holds() {
    let policy = parse(
        r#"
        [[role]]
        name = "oncall"
        allow = [{ names = ["prod/**"], levels = ["read", "write"] }]
        deny = [{ names = ["prod/root"], levels = ["read"] }]
        [[role]]
        name = "reader"
        allow = [{ names = ["prod/root"], levels = ["read"] }]
        [[binding]]
        id = "oncall"
        role = "oncall"
        uid = [5]
        exe = "/bin/n"
        break_glass = "1h"
        [[binding]]
        role = "reader"
        uid = [5]
        "#,
    );
    let mut caller = ids(5, 5);
    caller.exe_now = Some(Arc::new(Exe { path: "/bin/n".into(), sha256: None }));
    assert_eq!(rights(&policy, &caller, "prod/x"), "");
    assert_eq!(rights(&policy, &caller, "prod/root"), "r", "its deny says nothing either");
    let offered = |caller: &Caller, name: &str, levels: &[Level]| {
        let (name, levels) = (name.parse().unwrap(), levels.iter().copied().collect());
        let target = Target::Secret { name: &name, attributes: None };
        policy.emergency(caller, levels, target, &context(NOON))
    };
    let emergency = offered(&caller, "prod/x", &[Level::Read, Level::Write]).unwrap();
    assert_eq!((&*emergency.binding, emergency.at_most.as_secs()), ("oncall", 3600));
    assert_eq!(emergency.whom.to_string(), "uid 5, exe \"/bin/n\"");
    assert!(offered(&caller, "prod/x", &[Level::Read, Level::Delete]).is_none());
    assert!(offered(&caller, "prod/root", &[Level::Read]).is_none());
    assert!(offered(&caller, "other", &[Level::Read]).is_none());
    assert!(offered(&ids(5, 5), "prod/x", &[Level::Read]).is_none(), "by another program");
    let told = policy.explain(
        &caller,
        Target::Secret { name: &"prod/x".parse().unwrap(), attributes: None },
        &context(NOON),
    );
    assert_eq!(told.bindings[0].failed, ["break_glass 1h: it is to be taken first"]);
}

#[test]
fn a_guard_that_asks_for_elevation_is_met_by_it_on_names_and_on_the_store() {
    let policy = parse(
        r#"
        [[role]]
        name = "admin"
        allow = [{ names = ["**"], levels = ["admin"] }]
        [[binding]]
        role = "admin"
        uid = [0]
        [[guard]]
        names = ["**"]
        levels = ["admin"]
        require_mfa = true
        [[expect]]
        caller = { uid = 0 }
        secret = "a"
        levels = ["read", "write", "delete"]
        [[expect]]
        caller = { uid = 0, elevated = true }
        secret = "a"
        levels = ["admin"]
        "#,
    );
    assert!(policy.needs().session);
    let name = "a".parse().unwrap();
    for target in [Target::Secret { name: &name, attributes: None }, Target::Store] {
        let plain = policy.decide(&ids(0, 0), Level::Admin, target, &context(NOON));
        let rule = Some("guard 1".into());
        assert_eq!(plain, Decision::Denied { rule, reason: Reason::NeedsElevation });
        let elevated = Context { elevated: true, ..context(NOON) };
        assert!(policy.decide(&ids(0, 0), Level::Admin, target, &elevated).is_allowed());
    }
    assert!(policy.run_expectations(NOON.parse().unwrap()).iter().all(|result| result.passed));
}
