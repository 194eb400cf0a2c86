//! What Linux says of the process, read when a scrape asks. Elsewhere the values stay 0.

use prometheus::{Counter, IntGauge, Registry};

use super::{
    family::{gauge, level},
    register,
};

/// Ticks a second of the times in `/proc/self/stat`: fixed in Linux's ABI towards programs, whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone)]
pub(super) struct ProcessMetrics {
    resident_bytes: IntGauge,
    cpu_seconds: Counter,
    open_fds: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let cpu = Counter::new("process_cpu_seconds_total", "User and system CPU time in seconds.");
        Self {
            resident_bytes: gauge(registry, "process_resident_memory_bytes", "Resident memory in bytes."),
            cpu_seconds: register(registry, cpu),
            open_fds: gauge(registry, "process_open_fds", "Open file descriptors."),
            threads: gauge(registry, "process_threads", "Threads."),
        }
    }

    pub(super) fn read(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| first_number(line.strip_prefix(name)?));
        self.resident_bytes.set(level(field("VmRSS:").unwrap_or_default().saturating_mul(1024)));
        self.threads.set(level(field("Threads:").unwrap_or_default()));
        self.open_fds.set(level(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)));
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let now = cpu_seconds(&stat).unwrap_or_default();
        // Two scrapes at once may read in the other order.
        self.cpu_seconds.inc_by((now - self.cpu_seconds.get()).max(0.0));
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The program's name stands in parentheses and may hold anything; user and system time are 12 and 13 fields after it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_program_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 4 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }
}
