//! What this machine gives: CPUs and file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Machine;

/// The CPUs that this process may use (affinity and cgroup quota counted) and the descriptors that it may open, after
/// raising the soft limit to the hard one: a proxy needs two for each call's way, and 1,024 is for shells.
pub fn detect() -> Machine {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // Where it may not be raised, what there is has to do.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        descriptors: getrlimit(Resource::Nofile)
            .current
            .unwrap_or(DESCRIPTORS_UNLIMITED),
    }
}

/// Where nobody limits them, we do.
const DESCRIPTORS_UNLIMITED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_cpu_and_descriptors_up_to_its_hard_limit() {
        let machine = detect();
        assert!(machine.cpus >= 1);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(
            machine.descriptors,
            limit.current.unwrap_or(DESCRIPTORS_UNLIMITED)
        );
        assert_eq!(limit.current, limit.maximum);
    }
}
