//! `mounter` and `unmounter`: what the system's unit runs as root around its server.

use super::Done;
use crate::cli::Context;
use crate::cli::args::UnitArgs;
use crate::daemon::config::Layer;
use crate::daemon::unit;

pub(super) fn mount(context: &Context, args: &UnitArgs) -> Done {
    let (_, config) = context.config(args.system.system, Layer::default())?;
    Ok(unit::mount(&config, &args.unit, &context.environment)?)
}

pub(super) fn unmount(context: &Context, args: &UnitArgs) -> Done {
    let (_, config) = context.config(args.system.system, Layer::default())?;
    Ok(unit::unmount(&config, &args.unit, &context.environment)?)
}
