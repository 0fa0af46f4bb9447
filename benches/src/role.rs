//! This program in another role: a process of its own, placed where the measurement wants it.

use std::{
    env,
    ffi::OsString,
    process::{Command, Stdio},
};

use crate::Error;

/// Where a process runs, as far as the machine lets it be put there.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "not a published crate")]
pub struct Placing {
    /// The only processor it runs on, by taskset's name for it.
    pub processor: Option<&'static str>,
    /// It never preempts a process that sends it something (the kernel's batch policy).
    pub batch: bool,
}

/// The command that starts this program with `args`, its input empty.
pub fn command(placing: Placing, args: &[&str]) -> Result<Command, Error> {
    let mut words: Vec<OsString> = Vec::new();
    if placing.batch {
        words.extend(["chrt", "--batch", "0"].map(Into::into));
    }
    if let Some(processor) = placing.processor {
        words.extend(["taskset", "--cpu-list", processor].map(Into::into));
    }
    words.push(env::current_exe()?.into());
    words.extend(args.iter().map(Into::into));
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().ok_or("no program")?);
    command.args(words).stdin(Stdio::null());
    Ok(command)
}

/// Whether a program is there and does this.
pub fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success())
}
