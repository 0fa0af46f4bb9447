//! What the kernel knows of this process. Linux only.

use std::{fs, path::Path};

use crate::Error;

/// CPU time of all threads so far, in nanoseconds.
pub fn cpu_time() -> Result<u64, Error> {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        total += on_cpu(&task?.path().join("schedstat"))?;
    }
    Ok(total)
}

/// CPU time of the calling thread so far, in nanoseconds, as of when it last slept or the kernel's
/// clock last ticked. For work that stays on one thread while others may end, whose time is lost to
/// [`cpu_time`].
pub fn thread_cpu_time() -> Result<u64, Error> {
    on_cpu(Path::new("/proc/thread-self/schedstat"))
}

fn on_cpu(schedstat: &Path) -> Result<u64, Error> {
    let stat = fs::read_to_string(schedstat)?;
    let on_cpu = stat.split(' ').next().ok_or("schedstat is empty")?;
    Ok(on_cpu.parse()?)
}

/// Resident memory, in bytes.
pub fn resident_memory() -> Result<u64, Error> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib = line.split_whitespace().nth(1).ok_or("VmRSS is empty")?;
    Ok(kib.parse::<u64>()? * 1024)
}
