//! Submissions: sending them to the queue, seeing them finish, ending those that never do.

use std::time::{Duration, Instant};

use pontoon_wire::event::Event;
use pontoon_wire::frame::Submit;
use pontoon_wire::{Id, handle as kind};

use crate::End;
use crate::session::{DeviceEntry, InFlight, Session};

/// Most questions after unfinished submissions at once.
const MAX_QUESTIONS: usize = 65_536;

impl Session {
    pub(crate) fn submit(&mut self, submit: Submit<'_>) -> Result<(), End> {
        let command_buffers = submit
            .buffers()
            .map(|id| {
                let (buffer, ticket) = self.tables.command_buffers.remove(id)?;
                self.recordings.end(&ticket);
                Ok(buffer)
            })
            .collect::<Result<Vec<_>, End>>()?;
        self.usage.objects -= command_buffers.len() as u64;
        let (copies, reads) = self.take_copies(submit.device)?.unzip();
        let entry = self.tables.devices.get_mut(submit.device)?;
        if submit.index != entry.submitted + 1 {
            return Err(End::Violation(format!("submission {} after {}", submit.index, entry.submitted)));
        }
        entry.submitted = submit.index;
        let token = entry.queue.submit(copies.into_iter().chain(command_buffers));
        entry.in_flight.push_back(InFlight::new(submit.index, token, reads));
        entry.unsubmitted = false;
        self.usage.submissions += 1;
        Ok(())
    }

    pub(crate) fn notify_done(&mut self, device: Id<kind::Device>, index: u64, call: u32) -> Result<(), End> {
        let entry = self.tables.devices.get_mut(device)?;
        if index > entry.submitted || entry.notify.len() == MAX_QUESTIONS {
            return Err(End::Violation(format!("question after submission {index} of {}", entry.submitted)));
        }
        self.usage.round_trips += 1;
        entry.notify.push_back((index, call));
        Ok(())
    }

    /// Sees that no submission is older than the limit, and nothing else.
    ///
    /// # Errors
    /// [`End::Watchdog`].
    pub fn check_overdue(&mut self) -> Result<(), End> {
        let limit = self.limits.submission_seconds;
        let overdue = |entry: &DeviceEntry| {
            entry.in_flight.front().is_some_and(|oldest| oldest.since.elapsed().as_secs() >= limit)
        };
        // Only what is really unfinished counts: look at the queues first.
        if self.tables.devices.iter_mut().any(|(_, entry)| overdue(entry)) {
            return self.progress(Duration::ZERO);
        }
        Ok(())
    }

    /// Has the queue do all writes that wait for a submission.
    pub(crate) fn submit_writes(&mut self, device: Id<kind::Device>) -> Result<(), End> {
        let (copies, reads) = self.take_copies(device)?.unzip();
        let entry = self.tables.devices.get_mut(device)?;
        let token = entry.queue.submit(copies);
        entry.in_flight.push_back(InFlight::new(entry.submitted, token, reads));
        entry.unsubmitted = false;
        Ok(())
    }

    /// Submits what uploads wait for and sees the queue of `device` empty.
    ///
    /// # Errors
    /// [`End::Watchdog`] where it does not become so in time.
    pub(crate) fn drain(&mut self, device: Id<kind::Device>) -> Result<(), End> {
        self.submit_writes(device)?;
        while !self.tables.devices.get(device)?.in_flight.is_empty() {
            self.progress(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Whether the guest waits for something that only the GPU can bring about.
    pub fn is_awaited(&mut self) -> bool {
        (self.arena_is_short() && self.is_busy())
            || !self.waiting.is_empty()
            || self.tables.devices.iter_mut().any(|(_, entry)| !entry.notify.is_empty())
    }

    /// Whether submissions are under way.
    pub fn is_busy(&mut self) -> bool {
        self.tables.devices.iter_mut().any(|(_, entry)| !entry.in_flight.is_empty())
    }

    /// Sees what the GPU has finished, waiting up to `wait` for the oldest submission, and puts the news
    /// in the outbox.
    ///
    /// # Errors
    /// [`End::Watchdog`] where a submission is older than the limit.
    pub fn progress(&mut self, wait: Duration) -> Result<(), End> {
        let limit = self.limits.submission_seconds;
        let mut overdue = false;
        let mut pages = Vec::new();
        for (_, entry) in self.tables.devices.iter_mut() {
            self.usage.gpu_nanoseconds += retire(entry, wait, &mut pages);
            if entry.in_flight.is_empty() {
                entry.staged = 0;
            }
            overdue |=
                entry.in_flight.front().is_some_and(|oldest| oldest.since.elapsed().as_secs() >= limit);
        }
        pages.into_iter().for_each(|at| self.arena.unreserve(at));
        self.tidy_arena();
        // Mappings and losses that `wgpu` reported come before the news that the work is done.
        self.collect_reports();
        let mut done = Vec::new();
        for (device, entry) in self.tables.devices.iter_mut() {
            // (The submissions that `drain` adds have the number of the one before.)
            let finished = entry.in_flight.front().map_or(u64::MAX, |oldest| oldest.index.saturating_sub(1));
            entry.notify.retain(|&(index, call)| {
                let waits = index > finished;
                if !waits {
                    done.push(Event::Done { device, index, call });
                }
                waits
            });
        }
        done.iter().for_each(|event| self.send(event));
        if overdue { Err(End::Watchdog { limit }) } else { Ok(()) }
    }
}

/// Forgets finished submissions; how many nanoseconds they kept the queue busy. Arena pages that none of
/// them can write to any more go to `pages`.
fn retire(entry: &mut DeviceEntry, wait: Duration, pages: &mut Vec<u64>) -> u64 {
    let mut busy = 0;
    let mut wait = wait;
    if entry.in_flight.is_empty() {
        // Mappings of idle buffers come through without a submission.
        let _ = entry.device.poll(wgpu::PollType::Poll);
    }
    while let Some(oldest) = entry.in_flight.front() {
        let poll = wgpu::PollType::Wait { submission_index: Some(oldest.token.clone()), timeout: Some(wait) };
        if let Err(wgpu::PollError::Timeout) = entry.device.poll(poll) {
            break;
        }
        let now = Instant::now();
        busy += now.duration_since(oldest.since).as_nanos() as u64;
        pages.extend(entry.in_flight.pop_front().into_iter().flat_map(|work| work.pages));
        // The next one has had the queue to itself only since now, as far as the accounts go.
        if let Some(next) = entry.in_flight.front_mut() {
            next.since = now;
        }
        wait = Duration::ZERO;
    }
    busy
}
