//! The least rules that would have allowed what a log shows.
//!
//! A caller becomes a binding of its uid with what lasts of it: its program, its service, a container with
//! a name. What a login or a start makes anew (a session's scope, a container's id) is left out, or named
//! only where somebody who differs by it alone was refused the same: [`Narrowing`]. Names stand one by one,
//! for a pattern would also be over secrets that do not exist yet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::fact;
use crate::model::{Level, Levels, SecretName, Uid};

/// One access of a log, with the level that it takes.
#[derive(Clone, Debug)]
pub struct Access {
    pub who: AccessOf,
    /// `None`: a command on the store as a whole, which takes an admin.
    pub name: Option<SecretName>,
    /// `None`: any level; a refused look is one of a caller without any.
    pub level: Option<Level>,
    pub allowed: bool,
}

/// Who was it, as far as the log says and a policy can.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct AccessOf {
    pub uid: Uid,
    /// The cgroup path.
    pub unit: Option<String>,
    /// `RUNTIME:ID`.
    pub container: Option<String>,
    pub exe: Option<String>,
}

/// What to do where one caller was allowed what another one was refused, and nothing that lasts tells them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Narrowing {
    /// Name the session or the container that was allowed, so that the log is repeated to the line.
    ByWhatPasses,
    /// Allow both, and say so.
    Never,
}

/// Collects accesses, and then says which rules they take.
#[derive(Clone, Debug, Default)]
pub struct Suggestion {
    allowed: BTreeMap<AccessOf, Rights>,
    denied: BTreeMap<AccessOf, BTreeSet<Refusal>>,
}

type Rights = BTreeMap<Option<SecretName>, Levels>;

/// What was refused: a name, or the store, and a level, or any.
type Refusal = (Option<SecretName>, Option<Level>);

/// A proposed policy.
#[derive(Clone, Debug)]
pub struct Suggested {
    /// It parses.
    pub toml: String,
    pub bindings: usize,
    pub roles: usize,
    /// Refusals that the rules would not repeat, as `CALLER: LEVEL on NAME`: what was allowed at another time to
    /// a caller of whom nothing differs.
    pub contradicted: Vec<String>,
    /// Callers whose program was deleted or replaced while it ran, which their bindings say. They do not fit its
    /// next start.
    pub deleted: Vec<String>,
}

impl Suggestion {
    /// Takes an access.
    pub fn observe(&mut self, access: Access) {
        let Access { who, name, level, allowed } = access;
        match (allowed, level) {
            (true, Some(level)) => {
                let levels = self.allowed.entry(who).or_default().entry(name).or_default();
                *levels = levels.union([level].into_iter().collect());
            }
            (true, None) => {}
            (false, _) => {
                self.denied.entry(who).or_default().insert((name, level));
            }
        }
    }

    /// Forgets what was observed of these names.
    pub fn leave_out(&mut self, names: &BTreeSet<SecretName>) {
        let is_out =
            |name: &Option<SecretName>| name.as_ref().is_some_and(|name| names.contains(name));
        self.allowed.retain(|_, rights| {
            rights.retain(|name, _| !is_out(name));
            !rights.is_empty()
        });
        for refusals in self.denied.values_mut() {
            refusals.retain(|(name, _)| !is_out(name));
        }
    }

    /// Returns the rules.
    pub fn suggest(&self, narrowing: Narrowing) -> Suggested {
        let mut narrow = BTreeSet::new();
        if narrowing == Narrowing::ByWhatPasses {
            self.each_contradiction(&self.subjects(&narrow), &mut |found| {
                narrow.insert(found.subject.clone());
            });
        }
        let subjects = self.subjects(&narrow);
        let mut contradicted = BTreeSet::new();
        self.each_contradiction(&subjects, &mut |found| {
            contradicted.insert(found.to_string());
        });
        let mut roles: BTreeMap<Vec<Rule>, Vec<&AccessOf>> = BTreeMap::new();
        for (who, rights) in &subjects {
            roles.entry(rules(rights)).or_default().push(who);
        }
        Suggested {
            toml: written(&roles),
            bindings: subjects.len(),
            roles: roles.len(),
            contradicted: contradicted.into_iter().collect(),
            deleted: subjects
                .keys()
                .filter(|who| who.is_deleted())
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// Returns whom bindings would name, with what each gets. Of those in `narrow`, what a login or a
    /// start makes anew is named too.
    fn subjects(&self, narrow: &BTreeSet<AccessOf>) -> BTreeMap<AccessOf, Rights> {
        let mut subjects: BTreeMap<AccessOf, Rights> = BTreeMap::new();
        for (who, rights) in &self.allowed {
            let lasting = who.lasting();
            let subject = if narrow.contains(&lasting) { who.expressible() } else { lasting };
            let held = subjects.entry(subject).or_default();
            for (name, levels) in rights {
                let held = held.entry(name.clone()).or_default();
                *held = held.union(*levels);
            }
        }
        subjects
    }

    /// Visits each refusal that rules for those subjects would not repeat, though its caller was never allowed
    /// the same itself.
    fn each_contradiction(
        &self,
        subjects: &BTreeMap<AccessOf, Rights>,
        visit: &mut dyn FnMut(Contradiction<'_>),
    ) {
        let nothing = Rights::new();
        let mut by_uid: BTreeMap<Uid, Vec<(&AccessOf, &Rights)>> = BTreeMap::new();
        for (subject, rights) in subjects {
            by_uid.entry(subject.uid).or_default().push((subject, rights));
        }
        for (who, refused) in &self.denied {
            let own = self.allowed.get(who).unwrap_or(&nothing);
            let fitting = by_uid.get(&who.uid).into_iter().flatten();
            for (subject, rights) in fitting.filter(|(subject, _)| subject.fits(who)) {
                for (name, level) in refused {
                    if gives(rights, name, *level) && !gives(own, name, *level) {
                        visit(Contradiction { who, subject, name: name.as_ref(), level: *level });
                    }
                }
            }
        }
    }
}

/// A refusal that rules would not repeat.
struct Contradiction<'a> {
    who: &'a AccessOf,
    subject: &'a AccessOf,
    name: Option<&'a SecretName>,
    level: Option<Level>,
}

impl fmt::Display for Contradiction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.map_or("the store", SecretName::as_str);
        match self.level {
            Some(level) => write!(f, "{}: {level} on {name}", self.who),
            None => write!(f, "{}: a look at {name}", self.who),
        }
    }
}

fn gives(rights: &Rights, name: &Option<SecretName>, level: Option<Level>) -> bool {
    let over_all = rights.get(&None).copied().unwrap_or_default();
    let levels = rights.get(name).copied().unwrap_or_default().union(over_all);
    level.map_or(!levels.is_empty(), |level| levels.allow(level))
}

impl AccessOf {
    /// Returns what of it a policy can name.
    fn expressible(&self) -> Self {
        let unit = |unit: &&String| fact::unit(unit).is_ok_and(|found| *found == **unit);
        let container = |text: &&String| fact::container(text).is_ok();
        // With the kernel's mark on a program whose file is gone: the path alone would be another one, and no
        // program at all would be any.
        let exe = |exe: &&String| exe.starts_with('/');
        Self {
            uid: self.uid,
            unit: self.unit.as_ref().filter(unit).cloned(),
            container: self.container.as_ref().filter(container).cloned(),
            exe: self.exe.as_ref().filter(exe).cloned(),
        }
    }

    /// Returns what of that is the same after the next login or start.
    fn lasting(&self) -> Self {
        let all = self.expressible();
        let unit = |unit: &String| {
            let leaf = unit.rsplit('/').next().unwrap_or(unit);
            leaf.ends_with(".service") && !leaf.starts_with("run-")
        };
        let container =
            |text: &String| ["lxc:", "nspawn:"].iter().any(|kind| text.starts_with(kind));
        Self { unit: all.unit.filter(unit), container: all.container.filter(container), ..all }
    }

    fn is_deleted(&self) -> bool {
        self.exe.as_ref().is_some_and(|exe| exe.ends_with(" (deleted)"))
    }

    /// Tells whether a binding of these facts is one of that caller too.
    fn fits(&self, who: &Self) -> bool {
        let same =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        self.uid == who.uid
            && same(&self.unit, &who.unit)
            && same(&self.container, &who.container)
            && same(&self.exe, &who.exe)
    }
}

/// Shows it as `uid 33, unit system.slice/nginx.service`.
impl fmt::Display for AccessOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        let facts = [("unit", &self.unit), ("container", &self.container), ("exe", &self.exe)];
        let known = facts.into_iter().filter_map(|(key, fact)| Some((key, fact.as_ref()?)));
        known.into_iter().try_for_each(|(key, fact)| write!(f, ", {key} {fact}"))
    }
}

/// Levels, and the names that they are over.
type Rule = (Vec<Level>, Vec<String>);

fn rules(rights: &Rights) -> Vec<Rule> {
    // Who may command the store as a whole may do everything: there is nothing less.
    if rights.contains_key(&None) {
        return vec![(vec![Level::Admin], vec!["**".into()])];
    }
    let mut rules: BTreeMap<Vec<Level>, Vec<String>> = BTreeMap::new();
    for (name, levels) in rights {
        let name = name.as_ref().map_or_else(|| "**".to_owned(), ToString::to_string);
        rules.entry(levels.iter().collect()).or_default().push(name);
    }
    rules.into_iter().collect()
}

// Writing to a string does not fail.
fn written(roles: &BTreeMap<Vec<Rule>, Vec<&AccessOf>>) -> String {
    let (mut out, mut bound, mut ids) = (String::new(), Vec::new(), BTreeSet::new());
    for (number, (rules, subjects)) in (1..).zip(roles) {
        let _ = writeln!(out, "[[role]]\nname = \"role-{number}\"\nallow = [");
        for (levels, names) in rules {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            let levels: Vec<String> = levels.iter().map(|level| format!("\"{level}\"")).collect();
            let (separator, end) =
                if names.len() > 3 { ("\n        ", "\n    ") } else { (" ", "") };
            let start = if names.len() > 3 { separator } else { "" };
            let names = names.join(&format!(",{separator}"));
            let _ = writeln!(
                out,
                "    {{ names = [{start}{names}{end}], levels = [{}] }},",
                levels.join(", ")
            );
        }
        out.push_str("]\n\n");
        bound.extend(subjects.iter().map(|subject| (*subject, number)));
    }
    bound.sort();
    for (subject, number) in bound {
        let id = identifier(subject, &mut ids);
        let _ = writeln!(
            out,
            "[[binding]]\nid = \"{id}\"\nrole = \"role-{number}\"\nuid = {}",
            subject.uid
        );
        let facts =
            [("unit", &subject.unit), ("container", &subject.container), ("exe", &subject.exe)];
        for (key, fact) in facts {
            if let Some(fact) = fact {
                let _ = writeln!(out, "{key} = {}", quoted(fact));
            }
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// Returns a string of TOML in printable ASCII, as which it passes any printer unchanged.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            // Writing to a string does not fail.
            c => write!(out, "\\U{:08X}", u32::from(c)).unwrap_or_default(),
        }
    }
    out.push('"');
    out
}

/// Returns an id that says whose binding it is: audit lines name it.
fn identifier(subject: &AccessOf, taken: &mut BTreeSet<String>) -> String {
    let place = subject.unit.as_deref().or(subject.container.as_deref());
    let what = subject.exe.as_deref().or(place).unwrap_or_default();
    let leaf = what.rsplit('/').next().unwrap_or_default();
    let clean: String =
        leaf.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(40).collect();
    let mut id = match clean.is_empty() {
        true => format!("uid-{}", subject.uid),
        false => format!("uid-{}-{clean}", subject.uid),
    };
    let base = id.clone();
    for number in 2.. {
        if taken.insert(id.clone()) {
            break;
        }
        id = format!("{base}-{number}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{NumericIds, Policy};

    fn who(uid: u32, unit: &str, exe: &str) -> AccessOf {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        AccessOf { uid: Uid(uid), unit: some(unit), container: None, exe: some(exe) }
    }

    fn access(who: &AccessOf, name: &str, level: Option<Level>, allowed: bool) -> Access {
        Access { who: who.clone(), name: name.parse().ok(), level, allowed }
    }

    fn suggested(accesses: &[Access]) -> Suggested {
        let mut suggestion = Suggestion::default();
        accesses.iter().for_each(|access| suggestion.observe(access.clone()));
        let found = suggestion.suggest(Narrowing::ByWhatPasses);
        Policy::parse(&found.toml, &NumericIds)
            .unwrap_or_else(|err| panic!("{err}: {}", found.toml));
        found
    }

    #[test]
    fn sessions_and_starts_are_left_out_and_what_lasts_is_named() {
        let session = |n: u32| {
            who(1000, &format!("user.slice/user-1000.slice/session-{n}.scope"), "/usr/bin/cat")
        };
        let service = who(33, "system.slice/nginx.service", "/usr/sbin/odd \"name\\\n\u{202e}");
        let read = Some(Level::Read);
        let found = suggested(&[
            access(&session(1), "a", read, true),
            access(&session(2), "b", read, true),
            access(&service, "a", read, true),
            access(&service, "a", Some(Level::Write), true),
        ]);
        assert_eq!((found.bindings, found.roles), (2, 2), "{}", found.toml);
        assert!(!found.toml.contains("session") && found.toml.contains("nginx.service"));
        assert!(
            found.toml.contains("names = [\"a\", \"b\"], levels = [\"read\"]"),
            "{}",
            found.toml
        );
        assert!(found.toml.contains("names = [\"a\"], levels = [\"read\", \"write\"]"));
    }

    #[test]
    fn who_was_refused_the_same_makes_a_binding_narrower_or_is_told() {
        let one = who(5, "user.slice/session-1.scope", "/x");
        let other = who(5, "user.slice/session-2.scope", "/x");
        let read = Some(Level::Read);
        let found = suggested(&[access(&one, "a", read, true), access(&other, "a", read, false)]);
        assert!(
            found.toml.contains("session-1.scope") && found.contradicted.is_empty(),
            "{found:?}"
        );
        let mut suggestion = Suggestion::default();
        suggestion.observe(access(&one, "a", read, true));
        suggestion.observe(access(&other, "a", read, false));
        let found = suggestion.suggest(Narrowing::Never);
        assert!(!found.toml.contains("session") && found.contradicted.len() == 1, "{found:?}");
        // Here nothing differs but what the policy was at the time.
        let unknown = who(5, "", "/x");
        let found = suggested(&[
            access(&unknown, "a", read, true),
            access(&other, "a", None, false),
            access(&unknown, "a", read, false),
        ]);
        assert_eq!(
            found.contradicted,
            ["uid 5, unit user.slice/session-2.scope, exe /x: a look at a"]
        );
    }

    #[test]
    fn a_program_that_was_deleted_is_named_as_it_ran_and_widens_nothing() {
        let gone = who(5, "", "/opt/app (deleted)");
        let found = suggested(&[access(&gone, "a", Some(Level::Read), true)]);
        assert!(found.toml.contains("exe = \"/opt/app (deleted)\""), "{}", found.toml);
        assert_eq!(found.deleted, ["uid 5, exe /opt/app (deleted)"]);
        let kept = who(5, "", "/opt/app");
        assert!(suggested(&[access(&kept, "a", Some(Level::Read), true)]).deleted.is_empty());
    }

    #[test]
    fn names_that_are_left_out_take_no_rule_and_contradict_none() {
        let (ada, bob) = (who(1000, "", "/usr/bin/cat"), who(1001, "", "/usr/bin/cat"));
        let read = Some(Level::Read);
        let mut suggestion = Suggestion::default();
        for (who, name) in [(&ada, "a"), (&ada, "decoy"), (&bob, "decoy")] {
            suggestion.observe(access(who, name, read, true));
        }
        let session = "user.slice/user-1000.slice/session-7.scope";
        suggestion.observe(access(&who(1000, session, "/usr/bin/cat"), "decoy", read, false));
        let before = suggestion.suggest(Narrowing::Never);
        assert!(before.toml.contains("decoy"), "{}", before.toml);
        assert_eq!((before.bindings, before.contradicted.len()), (2, 1));
        suggestion.leave_out(&["decoy".parse().unwrap()].into());
        let left = suggestion.suggest(Narrowing::Never);
        assert!(!left.toml.contains("decoy"), "{}", left.toml);
        assert_eq!((left.bindings, left.contradicted.len()), (1, 0));
    }

    #[test]
    fn a_command_on_the_store_takes_an_admin_and_nothing_gives_no_rule() {
        let root = who(0, "", "");
        let found = suggested(&[
            access(&root, "", Some(Level::Admin), true),
            access(&root, "a", Some(Level::Read), true),
        ]);
        assert!(found.toml.contains("names = [\"**\"], levels = [\"admin\"]"), "{}", found.toml);
        assert_eq!(found.roles, 1);
        assert_eq!(suggested(&[]).toml, "");
    }
}
