//! What the kernel knows of this process. Linux only.

use std::fs;

use crate::Error;

/// CPU time of all threads so far, in nanoseconds.
pub fn cpu_time() -> Result<u64, Error> {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu = stat.split(' ').next().ok_or("schedstat is empty")?;
        total += on_cpu.parse::<u64>()?;
    }
    Ok(total)
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
