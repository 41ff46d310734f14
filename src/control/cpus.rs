//! What this process may use of the machine: CPUs and descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::Machine;

/// CPUs by affinity and cgroup quota, and descriptors, whose soft limit is raised to the hard one.
pub fn machine() -> Machine {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    Machine {
        // Honours the affinity mask and the quota of cgroups.
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: limit.current.unwrap_or(u64::MAX),
    }
}

/// The CPUs that this process may run on, in order.
pub fn allowed() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU)
            .filter(|&cpu| set.is_set(cpu))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
