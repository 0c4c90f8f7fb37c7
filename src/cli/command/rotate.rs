//! `rotate`: has the daemon rotate a secret, and tells each step as it is taken.
//!
//! Each request of ours is a short one, so that this process can be killed at any time: the rotation goes
//! on by itself.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::args::Rotate;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::text_of;
use crate::cli::plaintext;
use crate::model::{SecretName, parse_span};

pub(super) fn run(context: &Context, args: &Rotate) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let Some(name) = &args.name else { return all_due(context, &client) };
    let command = command(name, args)?;
    if !args.dry_run {
        stage(&client, name, args)?;
    }
    let reply = client.control("rotate", command.to_string().as_bytes())?;
    if args.dry_run {
        context.out.json(&reply)?;
        let lines = reply.get("plan").and_then(Value::as_array).into_iter().flatten();
        lines.map(text_of).try_for_each(|line| context.out.line(line))?;
        return Ok(ExitCode::SUCCESS);
    }
    end(context, &follow(context, &client, reply)?)
}

/// Rotates a secret as it would be without options; returns the result, whatever that is.
pub(super) fn one(context: &Context, client: &Client, name: &SecretName) -> Result<Value, Failure> {
    let command = json!({ "secret": name, "wait": false }).to_string();
    let reply = client.control("rotate", command.as_bytes())?;
    follow(context, client, reply)
}

fn command(name: &SecretName, args: &Rotate) -> Result<Value, Failure> {
    let wait_adopted = args.wait_adopted.as_ref().map(|text| {
        let span = parse_span(text).map(|span| span.as_secs());
        let wrong = || format!("{text:?} is no span such as 60s");
        span.ok_or_else(|| Failure::new(Kind::Config, "--wait-adopted", wrong()))
    });
    let given = args.pending || args.stdin || args.value_file.is_some();
    Ok(json!({
        "secret": name,
        "verify": !args.no_verify,
        "rollback": !args.no_rollback,
        "dry_run": args.dry_run,
        "wait": false,
        "wait_adopted": wait_adopted.transpose()?,
        "value": given.then_some("pending"),
    }))
}

/// Stages a value that was given; it never stands in a command.
fn stage(client: &Client, name: &SecretName, args: &Rotate) -> Result<(), Failure> {
    let value = match &args.value_file {
        Some(path) => plaintext::read_file(path)?,
        None if args.stdin => plaintext::read_all(std::io::stdin())
            .map_err(|err| Failure::new(Kind::Config, "standard input", err.to_string()))?,
        None => return Ok(()),
    };
    client.write_view(name, "@pending", &value)
}

/// Waits for a rotation, and shows each step that it takes.
fn follow(context: &Context, client: &Client, mut reply: Value) -> Result<Value, Failure> {
    let mut seen = 0;
    loop {
        let steps = reply.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
        for step in steps.iter().skip(seen) {
            context.out.step(said(step));
        }
        seen = steps.len().max(seen);
        // Only a result says whether it is one.
        if reply.get("success").is_some() {
            return Ok(reply);
        }
        let rotation = reply.get("rotation").cloned().unwrap_or_default();
        let question = json!({ "follow": rotation, "seen": seen }).to_string();
        reply = client.control("rotate", question.as_bytes())?;
    }
}

fn said(step: &Value) -> String {
    let text = |key: &str| step.get(key).map(text_of).unwrap_or_default();
    let took = step.get("took").and_then(Value::as_f64).unwrap_or_default();
    let mark = if step.get("ok").and_then(Value::as_bool) == Some(true) { "ok" } else { "FAILED" };
    format!("{:9} {mark:6} {:>8.1} ms  {}", text("step"), took, text("note"))
}

fn end(context: &Context, outcome: &Value) -> Result<ExitCode, Failure> {
    let text = |key: &str| outcome.get(key).map(text_of).unwrap_or_default();
    let flag = |key: &str| outcome.get(key).and_then(Value::as_bool).unwrap_or_default();
    let (name, error) = (text("secret"), text("error"));
    if !flag("success") {
        context.out.json(outcome)?;
        let back = if flag("rolled_back") { ", and its target is as it was" } else { "" };
        if !context.out.is_json() {
            context.out.note(format_args!("{name} not rotated{back}: {error}"));
        }
        return Ok(ExitCode::from(Kind::Rotation.exit_code()));
    }
    let proven = match (flag("verified"), text("verified_by")) {
        (true, by) => format!("verified by {by}"),
        (false, _) => "not verified".to_owned(),
    };
    let said = format!("{name} version {}, {proven}", text("new_version"));
    context.out.done(said, outcome)?;
    if !error.is_empty() && !context.out.is_json() {
        context.out.note(error);
    }
    Ok(ExitCode::SUCCESS)
}

fn all_due(context: &Context, client: &Client) -> Result<ExitCode, Failure> {
    let reply = client.control("rotate", br#"{"all_due": true}"#)?;
    let begun = reply.get("begun").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    for rotation in begun {
        if end(context, &follow(context, client, rotation)?)? != ExitCode::SUCCESS {
            code = ExitCode::from(Kind::Rotation.exit_code());
        }
    }
    Ok(code)
}
