//! `policy`: whether a file is a policy, whether it does what is expected of it, and why.

use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{Uid as HostUid, User};
use serde_json::{Value, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::{Policy, PolicyExplain};
use crate::cli::error::{Failure, Kind};
use crate::daemon::compose;
use crate::model::Level;
use crate::policy::{ExpectationResult, PolicyError};

mod suggest;

pub(super) fn run(context: &Context, args: &Policy) -> Result<ExitCode, Failure> {
    match args {
        Policy::Check(args) => check(context, &args.file)?,
        Policy::Explain(args) => explain(context, args)?,
        Policy::Show => show(context)?,
        Policy::Suggest(args) => suggest::run(context, args)?,
        Policy::Test(args) => return test(context, &args.file),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(context: &Context, file: &Path) -> Done {
    compose::parse_policy(&read(file)?).map_err(|fault| at(file, &fault))?;
    let shown = file.display().to_string();
    context.out.done(format_args!("{shown} is a policy"), &json!({ "file": shown, "valid": true }))
}

fn test(context: &Context, file: &Path) -> Result<ExitCode, Failure> {
    let results = compose::policy_expectations(&read(file)?).map_err(|fault| at(file, &fault))?;
    let broken: Vec<&ExpectationResult> = results.iter().filter(|result| !result.passed).collect();
    let held = results.len() - broken.len();
    context.out.json(&json!({ "held": held, "broken": broken }))?;
    for result in &broken {
        let ExpectationResult { line, secret, expected, found, .. } = result;
        let (expected, found) = (words(expected), words(found));
        context
            .out
            .line(format_args!("line {line}: {secret}: expected {expected}, found {found}"))?;
    }
    context.out.line(format_args!("{held} expectations held, {} did not", broken.len()))?;
    let code = if broken.is_empty() { 0 } else { Kind::Config.exit_code() };
    Ok(ExitCode::from(code))
}

fn words(levels: &[Level]) -> String {
    if levels.is_empty() {
        return "nothing".into();
    }
    levels.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(" and ")
}

fn explain(context: &Context, args: &PolicyExplain) -> Done {
    let client = context.client()?;
    let answer = match args.uid {
        None => client.control("explain", json!({ "secret": args.name }).to_string().as_bytes())?,
        Some(uid) => {
            let gid = args.gid.map_or_else(|| gid_of(uid), Ok)?;
            client.admin(&json!({ "do": "explain", "name": args.name, "uid": uid, "gid": gid }))?
        }
    };
    context.out.answer(&answer)
}

fn gid_of(uid: u32) -> Result<u32, Failure> {
    let user = User::from_uid(HostUid::from_raw(uid)).ok().flatten();
    user.map(|user| user.gid.as_raw()).ok_or_else(|| {
        Failure::new(Kind::Config, format!("uid {uid}"), "there is no such user here")
            .hint("name its group with --gid")
    })
}

fn show(context: &Context) -> Done {
    let answer = context.client()?.admin(&json!({ "do": "policy-show" }))?;
    context.out.json(&answer)?;
    let text = answer.get("policy").and_then(Value::as_str).unwrap_or_default();
    text.lines().try_for_each(|line| context.out.line(line))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|err| Failure::new(Kind::Config, file.display().to_string(), err.to_string()))
}

fn at(file: &Path, fault: &PolicyError) -> Failure {
    Failure::new(Kind::Config, file.display().to_string(), fault.to_string())
        .hint("the policy in force has not changed")
}
