//! What a policy says as a whole: its rules, whom it speaks of, and what each of them may do for good.
//!
//! For reports. A decision is about one caller at one moment; here hours, dates and the age of a process
//! are taken to hold for what is allowed, and not to hold for what is denied, so that nobody looks less
//! powerful than it is. What needs the approval of others, or is for emergencies, is had by nobody for good.

use std::sync::Arc;

use super::condition::{Condition, ContainerRef, hex};
use super::decide::{effective, every_implied};
use super::guard::Means;
use super::{Binding, Context, Effect, Grant, NothingUsed, Policy, Target};
use crate::model::{Caller, Container, Exe, Gid, Level, Levels, Process, Timestamp, Uid, Uptime};

/// Most callers of one binding that are told apart: the product of its uids, units and so on.
const MAX_SUBJECTS: usize = 64;

/// One rule that allows, as one binding gives it.
#[derive(Clone, Debug)]
pub struct RuleSurvey {
    /// What audit lines call it.
    pub label: Arc<str>,
    /// Where its binding stands in the file; none for a grant.
    pub line: Option<usize>,
    /// As in `read on names prod/web/*`.
    pub text: String,
    /// It is there for emergencies alone.
    pub break_glass: bool,
}

/// Somebody of whom a binding speaks.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The binding's id, or `#` and its place.
    pub binding: Arc<str>,
    /// As in `uid 33, unit system.slice/nginx.service`.
    pub whom: String,
    caller: Caller,
}

/// What guards ask for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GuardSurvey {
    pub guards: usize,
    /// Names that need the approval of others.
    pub approvals: usize,
    /// Whether commands of admins need an elevated login session.
    pub elevated_admins: bool,
}

impl Policy {
    /// Returns every rule that allows something, in the order of the file.
    pub fn rules(&self) -> Vec<RuleSurvey> {
        let of = |binding: &Binding| {
            let allows = binding.grants.iter().filter(|grant| grant.effect == Effect::Allow);
            let rule = |grant: &Grant| RuleSurvey {
                label: grant.label.clone(),
                line: binding.line,
                text: grant.rule.to_string(),
                break_glass: binding.break_glass.is_some(),
            };
            allows.map(rule).collect::<Vec<_>>()
        };
        self.bindings.iter().flat_map(|binding| of(binding)).collect()
    }

    /// Returns what everybody has.
    pub fn default_levels(&self) -> Levels {
        self.default_level
    }

    /// Returns what guards ask for.
    pub fn guard_survey(&self) -> GuardSurvey {
        GuardSurvey {
            guards: self.guards.len(),
            approvals: self.guards.iter().filter(|guard| guard.approvers > 0).count(),
            elevated_admins: self
                .guards
                .iter()
                .any(|guard| guard.require_mfa && guard.guards(Level::Admin, Target::Store)),
        }
    }

    /// Returns those of whom bindings speak, emergencies left out, in the order of the file.
    pub fn subjects(&self) -> Vec<Subject> {
        let ordinary = self.bindings.iter().filter(|binding| binding.break_glass.is_none());
        ordinary.flat_map(|binding| self.subjects_of(binding)).collect()
    }

    /// Returns what somebody may do with the target, now or at another hour, without asking anybody.
    pub fn standing(&self, subject: &Subject, target: Target<'_>, now: Timestamp) -> Levels {
        let context = Context {
            now,
            uptime: Uptime::UNKNOWN,
            // It takes a code and no other person.
            elevated: true,
            // It passes.
            quarantined: false,
            uses: &NothingUsed,
        };
        let guarded = |approvals| {
            let means = Means { approvals, elevated: true };
            self.guarded(means, |guard| guard.selects(target))
        };
        let default = every_implied(self.default_for(target)).minus(guarded(0));
        let (mut allowed, mut denied) = (default, Levels::NONE);
        for binding in self.bindings_of(subject.caller.uid) {
            let of_time = |condition: &&Condition| {
                matches!(condition, Condition::AfterStart(_) | Condition::Schedule(_))
            };
            let mut others = binding.conditions.iter().filter(|condition| !of_time(condition));
            if binding.break_glass.is_some()
                || !others.all(|condition| condition.holds(&subject.caller, &context))
            {
                continue;
            }
            let always = !binding
                .conditions
                .iter()
                .any(|condition| of_time(&condition) || matches!(condition, Condition::Until(_)));
            for grant in &binding.grants {
                match grant.effect {
                    Effect::Allow if grant.rule.allows(target) => {
                        let given = every_implied(grant.rule.levels);
                        allowed = allowed.union(given.minus(guarded(binding.approvals)));
                    }
                    Effect::Deny if always && grant.rule.denies(target) => {
                        denied = denied.union(grant.rule.levels);
                    }
                    Effect::Allow | Effect::Deny => {}
                }
            }
        }
        effective(allowed, denied)
    }

    fn subjects_of(&self, binding: &Binding) -> Vec<Subject> {
        let nobody = self.nobody();
        let mut callers = vec![Caller::with_ids(nobody, Gid(nobody.0))];
        for condition in &binding.conditions {
            let each = becoming(condition);
            if !each.is_empty() {
                let become_each = |caller: &Caller| {
                    each.iter().map(|set| set(caller.clone())).collect::<Vec<_>>()
                };
                callers = callers.iter().flat_map(become_each).take(MAX_SUBJECTS).collect();
            }
        }
        let subject = |caller| Subject {
            binding: binding.label.clone(),
            whom: described(&caller, nobody),
            caller,
        };
        callers.into_iter().map(subject).collect()
    }

    /// Returns a uid that no binding names, for those who are bound by something else.
    fn nobody(&self) -> Uid {
        let named = |uid: u32| self.by_uid.binary_search_by_key(&Uid(uid), |(uid, _)| *uid).is_ok();
        Uid((0..u32::MAX).rev().find(|uid| !named(*uid)).unwrap_or_default())
    }
}

type Becoming = Box<dyn Fn(Caller) -> Caller>;

/// Returns, for each caller that a condition on who it is fits, how to become that one.
fn becoming(condition: &Condition) -> Vec<Becoming> {
    fn each<T: Clone + 'static>(all: &[T], set: fn(&mut Caller, T)) -> Vec<Becoming> {
        let one = |value: &T| -> Becoming {
            let value = value.clone();
            Box::new(move |mut caller| {
                set(&mut caller, value.clone());
                caller
            })
        };
        all.iter().map(one).collect()
    }
    match condition {
        Condition::Container(all) => each(all, |caller, found| {
            let ContainerRef { runtime, id } = found;
            change_process(caller, |process| process.container = Some(Container { runtime, id }));
        }),
        Condition::Exe(all) => each(all, |caller, path| {
            let sha256 = caller.exe_now.as_ref().and_then(|exe| exe.sha256);
            caller.exe_now = Some(Arc::new(Exe { path: path.into(), sha256 }));
        }),
        Condition::ExeSha256(all) => each(all, |caller, sha256| {
            let path = caller.exe_now.as_ref().map(|exe| exe.path.clone()).unwrap_or_default();
            caller.exe_now = Some(Arc::new(Exe { path, sha256: Some(sha256) }));
        }),
        Condition::Gid(all) => each(all, |caller, gid| caller.gid = gid),
        Condition::Uid(all) => each(all, |caller, uid| caller.uid = uid),
        Condition::Unit(all) => each(all, |caller, unit| {
            change_process(caller, |process| process.unit = Some(unit));
        }),
        Condition::AfterStart(_)
        | Condition::Schedule(_)
        | Condition::Term(_)
        | Condition::Until(_) => Vec::new(),
    }
}

fn change_process(caller: &mut Caller, change: impl FnOnce(&mut Process)) {
    let mut process = caller.process.as_deref().cloned().unwrap_or(Process {
        pid: 1,
        started: Timestamp::MIN,
        comm: Vec::new(),
        exe: None,
        unit: None,
        container: None,
    });
    change(&mut process);
    caller.process = Some(Arc::new(process));
}

/// Says who somebody is, as conditions do.
fn described(caller: &Caller, nobody: Uid) -> String {
    let process = caller.process.as_deref();
    let container = process.and_then(|process| process.container.as_ref());
    let exe = caller.exe_now.as_deref();
    let digest =
        exe.and_then(|exe| exe.sha256).map(|digest| hex(digest.get(..6).unwrap_or_default()));
    let facts = [
        (caller.uid != nobody).then(|| format!("uid {}", caller.uid)),
        (caller.gid.0 != nobody.0).then(|| format!("gid {}", caller.gid)),
        process.and_then(|process| Some(format!("unit {}", process.unit.as_ref()?))),
        container.map(|found| format!("container {}:{}", found.runtime, found.id)),
        exe.filter(|exe| exe.path.is_absolute()).map(|exe| format!("exe {:?}", exe.path)),
        digest.map(|digest| format!("exe_sha256 {digest}...")),
    ];
    facts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SecretName;
    use crate::policy::NumericIds;

    const POLICY: &str = r#"
[[role]]
name = "web"
allow = [{ names = ["prod/web/*"], levels = ["read"] }, { names = ["prod/x"], levels = ["write"] }]
[[role]]
name = "night"
deny = [{ names = ["prod/web/tls"], levels = ["read"] }]
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]
[[binding]]
id = "site"
role = "web"
uid = [33, 34]
unit = ["a.service", "b.service"]
hours = ["08:00-18:00"]
[[binding]]
id = "dark"
role = "night"
uid = 33
hours = ["00:00-06:00"]
[[binding]]
id = "closed"
role = "night"
uid = 34
[[binding]]
id = "over"
role = "web"
gid = 7
until = 2020-01-01T00:00:00Z
[[binding]]
id = "root"
role = "admin"
uid = 0
[[binding]]
id = "call"
role = "admin"
uid = 50
break_glass = "1h"
[[guard]]
names = ["prod/web/ca"]
levels = ["read"]
approvers = 1
"#;

    fn standing(policy: &Policy, name: &str) -> Vec<(String, String)> {
        let now = "2026-11-28T22:00:00Z".parse().unwrap();
        let name: SecretName = name.parse().unwrap();
        let target = Target::Secret { name: &name, attributes: None };
        let subjects = policy.subjects();
        let found = subjects.iter().map(|subject| {
            let levels = policy.standing(subject, target, now).to_string();
            (format!("{} {}", subject.binding, subject.whom), levels)
        });
        found.filter(|(_, levels)| !levels.is_empty()).collect()
    }

    #[test]
    fn each_caller_of_a_binding_is_a_subject_of_its_own_and_hours_do_not_hide_what_it_may() {
        let policy = Policy::parse(POLICY, &NumericIds).unwrap();
        let subjects: Vec<String> = policy
            .subjects()
            .iter()
            .map(|subject| format!("{} {}", subject.binding, subject.whom))
            .collect();
        assert_eq!(subjects.len(), 4 + 1 + 1 + 1 + 1, "{subjects:?}");
        assert_eq!(subjects[1], "site uid 33, unit system.slice/b.service");
        let tls = standing(&policy, "prod/web/tls");
        // A deny by night is none by day; one that always holds is; what is over gives nothing.
        let whom: Vec<&str> = tls.iter().map(|(whom, _)| whom.as_str()).collect();
        let site = |n: usize| subjects[n].as_str();
        assert_eq!(whom, [site(0), site(1), "root uid 0"]);
        assert_eq!(tls[2].1, "read, write, delete, admin");
    }

    #[test]
    fn what_needs_others_or_an_emergency_is_had_by_nobody() {
        let policy = Policy::parse(POLICY, &NumericIds).unwrap();
        assert_eq!(
            standing(&policy, "prod/web/ca"),
            [("root uid 0".to_owned(), "write, delete".to_owned())]
        );
        assert!(policy.subjects().iter().all(|subject| *subject.binding != *"call"));
        let rules = policy.rules();
        let emergency: Vec<&str> =
            rules.iter().filter(|rule| rule.break_glass).map(|rule| &*rule.label).collect();
        assert_eq!(emergency, ["call: admin allow 1"]);
        let guards = GuardSurvey { guards: 1, approvals: 1, elevated_admins: false };
        assert_eq!((policy.guard_survey(), rules.len()), (guards, 2 + 2 + 1 + 1));
    }
}
