//! The jobs' templates that both ends of a connection remember.
//!
//! A template is sent once, before its job's first assignment. Both ends keep the same list by the same rule, oldest out
//! first, and the stream keeps the order: so the sender knows what the receiver has forgotten, and sends it again.

use std::collections::{HashMap, VecDeque};

use registry::id::JobId;

use crate::limits;

/// Templates by job, bounded in number and bytes.
#[derive(Debug)]
pub struct Templates<T> {
    entries: HashMap<JobId, (T, usize)>,
    order: VecDeque<JobId>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl<T> Default for Templates<T> {
    fn default() -> Self {
        Self::bounded(limits::TEMPLATES_MAX, limits::TEMPLATES_BYTES_MAX)
    }
}

impl<T> Templates<T> {
    fn bounded(count_max: usize, bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, count_max, bytes_max }
    }

    /// What is remembered of a job.
    pub fn get(&self, job: JobId) -> Option<&T> {
        self.entries.get(&job).map(|(value, _)| value)
    }

    /// Remembers a job's template of so many canonical bytes, and forgets the oldest ones that do not fit any more.
    pub fn insert(&mut self, job: JobId, bytes: usize, value: T) {
        if let Some((_, before)) = self.entries.insert(job, (value, bytes)) {
            self.bytes -= before;
            self.order.retain(|known| *known != job);
        }
        self.bytes += bytes;
        self.order.push_back(job);
        while self.order.len() > 1 && (self.order.len() > self.count_max || self.bytes > self.bytes_max) {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, bytes)) = self.entries.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u8) -> JobId {
        JobId([n; 32])
    }

    #[test]
    fn the_oldest_are_forgotten_when_number_or_bytes_are_over() {
        let mut templates = Templates::bounded(3, 100);
        for n in 0..4 {
            templates.insert(job(n), 10, n);
        }
        assert_eq!((templates.get(job(0)), templates.get(job(1))), (None, Some(&1)));
        templates.insert(job(9), 90, 9);
        assert_eq!((templates.get(job(2)), templates.get(job(3)), templates.get(job(9))), (None, Some(&3), Some(&9)));
        templates.insert(job(8), 500, 8);
        assert_eq!(templates.get(job(8)), Some(&8), "the newest stays, however long");
        assert_eq!(templates.order.len(), 1);
    }

    #[test]
    fn the_same_job_again_counts_once() {
        let mut templates = Templates::bounded(3, 100);
        for _ in 0..50 {
            templates.insert(job(1), 60, ());
        }
        assert_eq!((templates.bytes, templates.order.len()), (60, 1));
    }
}
