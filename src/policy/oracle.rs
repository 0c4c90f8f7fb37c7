//! Random policies, callers and targets against an evaluator that shares no code with the policy.
//!
//! The other evaluator works on the generated description, not on the parsed policy, so it also
//! holds the parser to account. It is naive on purpose.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::*;
use crate::model::{Container, Exe, Gid, Process, SecretType};

/// Policies in CI; with each go `QUESTIONS` questions on every level.
const POLICIES: u32 = 1_000;
const QUESTIONS: usize = 30;
const FULL: u32 = 40;

const LEVELS: [&str; 4] = ["read", "write", "delete", "admin"];
const PATTERNS: [&str; 12] =
    ["**", "a", "*", "a/*", "a/**", "a/b/*", "**/z", "a/**/z", "b/?", "b/z*", "*/**", "a/b/**"];
const NAMES: [&str; 10] = ["a", "z", "a/z", "a/b", "a/b/z", "a/b/c/z", "b/z", "b/zz", "c/d/e", "b"];
const UNITS: [&str; 3] =
    ["system.slice/n.service", "system.slice/m.service", "user.slice/n.service"];
const CONTAINERS: [&str; 2] = ["aaaaaaaaaaaabbbb", "aaaaaaaaaaaacccc"];
const EXES: [&str; 2] = ["/bin/n", "/bin/m"];
const TAGS: [&str; 3] = ["t1", "t2", "t3"];
const START: i64 = 1_767_744_000;

#[derive(Clone, Debug)]
struct SpecRule {
    is_deny: bool,
    patterns: Vec<&'static str>,
    tags: Vec<&'static str>,
    services: Vec<&'static str>,
    levels: Vec<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct SpecBinding {
    roles: Vec<usize>,
    uids: Vec<u32>,
    gids: Vec<u32>,
    units: Vec<&'static str>,
    /// The first twelve digits or the whole id.
    container: Option<&'static str>,
    exes: Vec<&'static str>,
    digest: Option<u8>,
    /// Whole hours, UTC.
    hours: Option<(u8, u8)>,
    until: Option<i64>,
    after_start: Option<u32>,
    max_uses: Option<u32>,
}

#[derive(Clone, Debug)]
struct SpecGuard {
    patterns: Vec<&'static str>,
    levels: Vec<&'static str>,
    /// None: elevation instead.
    approvers: Option<u32>,
}

#[derive(Clone, Debug)]
struct Spec {
    default: Vec<&'static str>,
    guards: Vec<SpecGuard>,
    roles: Vec<Vec<SpecRule>>,
    bindings: Vec<SpecBinding>,
}

#[derive(Clone, Debug)]
struct Question {
    uid: u32,
    gid: u32,
    groups: Option<Vec<u32>>,
    /// Unit, container, age in seconds; `None`: the process is not known.
    process: Option<(Option<&'static str>, Option<&'static str>, u32)>,
    exe: Option<(&'static str, Option<u8>)>,
    /// `None`: the store.
    name: Option<&'static str>,
    attributes: Option<(Vec<&'static str>, Option<&'static str>)>,
    now: i64,
    used: u32,
    elevated: bool,
}

impl Uses for Question {
    fn used(&self, _binding: &str) -> u32 {
        self.used
    }
}

// The naive evaluator.

fn naive_matches(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([], _) => false,
        (["**"], []) => false,
        (["**", rest @ ..], _) => {
            let least = usize::from(rest.is_empty());
            (least..=name.len()).any(|taken| naive_matches(rest, &name[taken..]))
        }
        (_, []) => false,
        ([glob, rest @ ..], [segment, later @ ..]) => {
            let glob: Vec<char> = glob.chars().collect();
            let segment: Vec<char> = segment.chars().collect();
            naive_glob(&glob, &segment) && naive_matches(rest, later)
        }
    }
}

fn naive_glob(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|taken| naive_glob(rest, &text[taken..])),
        (['?', rest @ ..], [_, later @ ..]) => naive_glob(rest, later),
        ([c, rest @ ..], [d, later @ ..]) => c == d && naive_glob(rest, later),
        _ => false,
    }
}

fn is_pattern_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    naive_matches(&pattern, &name)
}

fn rule_selects(rule: &SpecRule, question: &Question) -> bool {
    let Some(name) = question.name else {
        let is_plain = rule.tags.is_empty() && rule.services.is_empty();
        let is_strong = rule.is_deny || rule.levels.contains(&"admin");
        return is_plain && rule.patterns.contains(&"**") && is_strong;
    };
    if !rule.patterns.is_empty() && !rule.patterns.iter().any(|p| is_pattern_match(p, name)) {
        return false;
    }
    if rule.tags.is_empty() && rule.services.is_empty() {
        return true;
    }
    let Some((tags, service)) = &question.attributes else { return false };
    let by_tag = rule.tags.is_empty() || rule.tags.iter().any(|tag| tags.contains(tag));
    let by_service =
        rule.services.is_empty() || service.is_some_and(|s| rule.services.contains(&s));
    by_tag && by_service
}

/// Whether the conditions hold, `max_uses` apart.
fn binding_holds(binding: &SpecBinding, question: &Question) -> bool {
    let unit = question.process.and_then(|(unit, _, _)| unit);
    let container = question.process.and_then(|(_, container, _)| container);
    let age = question.process.map(|(_, _, age)| age);
    let hour = question.now.rem_euclid(86_400) / 3_600;
    let mut answers = Vec::new();
    if !binding.uids.is_empty() {
        answers.push(binding.uids.contains(&question.uid));
    }
    if !binding.gids.is_empty() {
        let mut groups = question.groups.clone().unwrap_or_default();
        groups.push(question.gid);
        answers.push(groups.iter().any(|group| binding.gids.contains(group)));
    }
    if !binding.units.is_empty() {
        answers.push(unit.is_some_and(|unit| binding.units.contains(&unit)));
    }
    if let Some(wanted) = binding.container {
        answers.push(container.is_some_and(|found| found.starts_with(wanted)));
    }
    if !binding.exes.is_empty() {
        answers.push(question.exe.is_some_and(|(path, _)| binding.exes.contains(&path)));
    }
    if let Some(wanted) = binding.digest {
        answers.push(question.exe.is_some_and(|(_, digest)| digest == Some(wanted)));
    }
    if let Some((from, to)) = binding.hours {
        let (from, to) = (i64::from(from), i64::from(to));
        let mut inside = from;
        let mut found = false;
        while inside != to {
            found |= inside == hour;
            inside = (inside + 1) % 24;
        }
        answers.push(found);
    }
    if let Some(until) = binding.until {
        answers.push(question.now < until);
    }
    if let Some(limit) = binding.after_start {
        answers.push(age.is_some_and(|age| age < limit));
    }
    !answers.contains(&false)
}

struct Verdict {
    allowed: bool,
    consumes: bool,
}

fn verdict(spec: &Spec, question: &Question, level: &'static str) -> Verdict {
    let no = Verdict { allowed: false, consumes: false };
    let is_guarded = spec.guards.iter().any(|guard| {
        let is_unmet = guard.approvers.is_some() || !question.elevated;
        let is_over = match question.name {
            Some(name) => guard.patterns.iter().any(|pattern| is_pattern_match(pattern, name)),
            None => guard.approvers.is_none() && guard.patterns.contains(&"**"),
        };
        is_unmet && is_over && (level == "admin" || guard.levels.contains(&level))
    });
    if is_guarded {
        return no;
    }
    let given = |rule: &SpecRule| rule.levels.contains(&level) || rule.levels.contains(&"admin");
    let mut unlimited = question.name.is_some()
        && (spec.default.contains(&level) || spec.default.contains(&"admin"));
    let mut limited = false;
    for binding in spec.bindings.iter().filter(|binding| binding_holds(binding, question)) {
        for rule in binding.roles.iter().flat_map(|&role| &spec.roles[role]) {
            if !rule_selects(rule, question) {
                continue;
            }
            if rule.is_deny && rule.levels.contains(&level) {
                return no;
            }
            if !rule.is_deny && given(rule) {
                match binding.max_uses {
                    None => unlimited = true,
                    Some(max) => limited |= question.used < max,
                }
            }
        }
    }
    Verdict { allowed: unlimited || limited, consumes: !unlimited && limited }
}

// The policy under test.

fn list(items: &[&str]) -> String {
    format!("{items:?}")
}

fn to_toml(spec: &Spec) -> String {
    let mut text = format!("default_level = {}\n", list(&spec.default));
    for guard in &spec.guards {
        let (names, levels) = (list(&guard.patterns), list(&guard.levels));
        let needs = match guard.approvers {
            Some(approvers) => format!("approvers = {approvers}"),
            None => "require_mfa = true".to_owned(),
        };
        writeln!(text, "[[guard]]\nnames = {names}\nlevels = {levels}\n{needs}").unwrap();
    }
    for (index, rules) in spec.roles.iter().enumerate() {
        writeln!(text, "[[role]]\nname = \"r{index}\"").unwrap();
        for (key, is_deny) in [("allow", false), ("deny", true)] {
            writeln!(text, "{key} = [").unwrap();
            for rule in rules.iter().filter(|rule| rule.is_deny == is_deny) {
                write!(text, "  {{ levels = {}", list(&rule.levels)).unwrap();
                for (key, items) in
                    [("names", &rule.patterns), ("tags", &rule.tags), ("services", &rule.services)]
                {
                    if !items.is_empty() {
                        write!(text, ", {key} = {}", list(items)).unwrap();
                    }
                }
                text.push_str(" },\n");
            }
            text.push_str("]\n");
        }
    }
    for (index, binding) in spec.bindings.iter().enumerate() {
        let roles: Vec<String> = binding.roles.iter().map(|role| format!("r{role}")).collect();
        writeln!(text, "[[binding]]\nid = \"b{index}\"\nroles = {roles:?}").unwrap();
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                writeln!(text, "{key} = {value}").unwrap();
            }
        };
        let some = |is_empty: bool, shown: String| (!is_empty).then_some(shown);
        line("uid", some(binding.uids.is_empty(), format!("{:?}", binding.uids)));
        line("gid", some(binding.gids.is_empty(), format!("{:?}", binding.gids)));
        line("unit", some(binding.units.is_empty(), list(&binding.units)));
        line("container", binding.container.map(|id| format!("\"docker:{id}\"")));
        line("exe", some(binding.exes.is_empty(), list(&binding.exes)));
        line(
            "exe_sha256",
            binding.digest.map(|b| format!("\"{}\"", format!("{b:02x}").repeat(32))),
        );
        line("hours", binding.hours.map(|(from, to)| format!("\"{from:02}:00-{to:02}:00\"")));
        line("timezone", binding.hours.map(|_| "\"UTC\"".to_owned()));
        line("until", binding.until.map(|at| Timestamp::from_second(at).unwrap().to_string()));
        line("after_start", binding.after_start.map(|seconds| format!("\"{seconds}s\"")));
        line("max_uses", binding.max_uses.map(|max| max.to_string()));
    }
    text
}

fn to_caller(question: &Question) -> Caller {
    let process = question.process.map(|(unit, container, age)| {
        Arc::new(Process {
            pid: 1,
            started: Timestamp::from_second(question.now - i64::from(age)).unwrap(),
            comm: Vec::new(),
            exe: None,
            unit: unit.map(Into::into),
            container: container.map(|id| Container { runtime: "docker".into(), id: id.into() }),
        })
    });
    let exe = question.exe.map(|(path, digest)| {
        Arc::new(Exe { path: path.into(), sha256: digest.map(|byte| [byte; 32]) })
    });
    Caller {
        groups: question.groups.as_ref().map(|all| all.iter().copied().map(Gid).collect()),
        process,
        exe_now: exe,
        ..Caller::with_ids(Uid(question.uid), Gid(question.gid))
    }
}

fn compare(spec: &Spec, policy: &Policy, question: &Question) -> Result<(), TestCaseError> {
    let caller = to_caller(question);
    let now = Timestamp::from_second(question.now).unwrap();
    let context = Context {
        now,
        uptime: Uptime::UNKNOWN,
        elevated: question.elevated,
        quarantined: false,
        uses: question,
    };
    let name = question.name.map(|name| name.parse::<SecretName>().unwrap());
    let attributes = question.attributes.as_ref().map(|(tags, service)| Attributes {
        secret_type: SecretType::ApiKey,
        service: service.map(Into::into),
        environment: None,
        tags: tags.iter().map(|&tag| tag.into()).collect(),
    });
    let target = match &name {
        Some(name) => Target::Secret { name, attributes: attributes.as_ref() },
        None => Target::Store,
    };
    let levels = policy.levels(&caller, target, &context);
    let mut any = false;
    for (level, word) in Level::ALL.into_iter().zip(LEVELS) {
        let decision = policy.decide(&caller, level, target, &context);
        let expected = verdict(spec, question, word);
        prop_assert_eq!(decision.is_allowed(), expected.allowed, "{} {:?}", word, decision);
        let consumes = matches!(decision, Decision::Allowed { consumes: Some(_), .. });
        prop_assert_eq!(consumes, expected.consumes, "{} {:?}", word, decision);
        any |= expected.allowed;
        if level != Level::Admin {
            prop_assert_eq!(levels.allow(level), expected.allowed, "levels {}", word);
        }
        prop_assert!(!levels.allow(level) || expected.allowed, "levels {}", word);
    }
    // Whoever may do something with a name by its name alone may enter the directories above it.
    let by_name_alone = Question { attributes: None, ..question.clone() };
    let knows = LEVELS.iter().any(|level| verdict(spec, &by_name_alone, level).allowed);
    let mut above = name.as_ref().and_then(SecretName::parent);
    while let Some(dir) = above {
        prop_assert!(!knows || policy.may_enter(&caller, &dir, &context), "may_enter {}", dir);
        above = dir.parent();
    }
    if any && !knows {
        prop_assert!(policy.has_attribute_rules(&caller, &context));
    }
    Ok(())
}

// What is random.

fn some_of<T: Clone + std::fmt::Debug + 'static>(
    items: &'static [T],
    max: usize,
) -> impl Strategy<Value = Vec<T>> {
    subsequence(items, 0..=max.min(items.len()))
}

fn rules() -> impl Strategy<Value = SpecRule> {
    (
        prop::bool::weighted(0.25),
        some_of(&PATTERNS, 2),
        prop_oneof![3 => Just(Vec::new()), 1 => some_of(&TAGS, 2)],
        prop_oneof![5 => Just(Vec::new()), 1 => Just(vec!["s1"])],
        subsequence(&LEVELS[..], 1..=2),
    )
        .prop_map(|(is_deny, mut patterns, tags, services, levels)| {
            if patterns.is_empty() && tags.is_empty() && services.is_empty() {
                patterns.push("**");
            }
            SpecRule { is_deny, patterns, tags, services, levels }
        })
}

fn bindings() -> impl Strategy<Value = SpecBinding> {
    let who = (
        some_of(&[0, 1, 2], 2),
        prop_oneof![2 => Just(Vec::new()), 1 => some_of(&[10, 11, 12], 2)],
        prop_oneof![2 => Just(Vec::new()), 1 => some_of(&UNITS, 2)],
        prop::option::weighted(0.2, select(vec![CONTAINERS[0], &CONTAINERS[1][..12]])),
        prop_oneof![4 => Just(Vec::new()), 1 => some_of(&EXES, 1)],
        prop::option::weighted(0.1, 0_u8..2),
    );
    let when = (
        prop::option::weighted(0.2, (0_u8..24, 0_u8..24).prop_filter("length", |(a, b)| a != b)),
        prop::option::weighted(0.2, START..START + 86_400),
        prop::option::weighted(0.2, 1_u32..40),
        prop::option::weighted(0.25, 1_u32..4),
    );
    (subsequence(vec![0, 1, 2], 1..=2), who, when).prop_map(|(roles, who, when)| {
        let (mut uids, gids, units, container, exes, digest) = who;
        let (hours, until, after_start, max_uses) = when;
        if uids.is_empty() && gids.is_empty() && units.is_empty() && container.is_none() {
            uids.push(1);
        }
        SpecBinding {
            roles,
            uids,
            gids,
            units,
            container,
            exes,
            digest,
            hours,
            until,
            after_start,
            max_uses,
        }
    })
}

fn guards() -> impl Strategy<Value = SpecGuard> {
    (some_of(&PATTERNS, 2), subsequence(&LEVELS[..], 1..=2), prop::option::of(1_u32..3)).prop_map(
        |(mut patterns, levels, approvers)| {
            if patterns.is_empty() {
                patterns.push("a/**");
            }
            SpecGuard { patterns, levels, approvers }
        },
    )
}

fn specs() -> impl Strategy<Value = Spec> {
    (
        prop_oneof![8 => Just(Vec::new()), 1 => subsequence(&LEVELS[..], 1..=1)],
        prop::collection::vec(prop::collection::vec(rules(), 1..4), 3),
        prop::collection::vec(bindings(), 0..6),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(guards(), 1..3)],
    )
        .prop_map(|(default, roles, bindings, guards)| Spec {
            default,
            guards,
            roles,
            bindings,
        })
}

fn questions() -> impl Strategy<Value = Question> {
    let process = (
        prop::option::of(select(&UNITS[..])),
        prop::option::of(select(&CONTAINERS[..])),
        0_u32..40,
    );
    (
        (0_u32..4, 9_u32..13, prop::option::of(some_of(&[10, 11, 12], 2))),
        prop::option::weighted(0.8, process),
        prop::option::of((select(&EXES[..]), prop::option::of(0_u8..2))),
        prop::option::weighted(0.9, select(&NAMES[..])),
        prop::option::of((some_of(&TAGS, 2), prop::option::of(select(vec!["s1", "s2"])))),
        (START..START + 86_400, 0_u32..4, prop::bool::ANY),
    )
        .prop_map(|(ids, process, exe, name, attributes, (now, used, elevated))| {
            let (uid, gid, groups) = ids;
            Question { uid, gid, groups, process, exe, name, attributes, now, used, elevated }
        })
}

#[expect(clippy::disallowed_methods, reason = "the size of a campaign is no configuration")]
fn policies() -> u32 {
    let is_full = std::env::var("SECRETFS_CAMPAIGN").is_ok_and(|campaign| campaign == "full");
    if is_full { POLICIES * FULL } else { POLICIES }
}

#[test]
fn every_decision_is_that_of_an_independent_evaluator() {
    let config = Config { cases: policies(), failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let mut counts = (0_u32, 0_u32);
    let tally = std::cell::Cell::new((0_u32, 0_u32));
    let cases = (specs(), prop::collection::vec(questions(), QUESTIONS));
    let outcome = runner.run(&cases, |(spec, questions)| {
        let text = to_toml(&spec);
        let policy = Policy::parse(&text, &NumericIds);
        let policy = policy.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        for question in &questions {
            compare(&spec, &policy, question)?;
            let allowed = LEVELS.iter().any(|level| verdict(&spec, question, level).allowed);
            let (yes, no) = tally.get();
            tally.set((yes + u32::from(allowed), no + u32::from(!allowed)));
        }
        Ok(())
    });
    if let Err(TestError::Fail(reason, (spec, _))) = &outcome {
        panic!("seed 7: {reason}\n{}", to_toml(spec));
    }
    outcome.unwrap();
    counts.0 += tally.get().0;
    counts.1 += tally.get().1;
    // A campaign in which nearly everything is refused, or allowed, would show little.
    assert!(counts.0 > counts.1 / 4 && counts.1 > counts.0 / 4, "{counts:?}");
}
