//! Error scopes: which commands were issued by which thread while which scope was open.
//!
//! As in `wgpu`, scopes belong to a device and a thread. A scope knows its commands by their sequence
//! numbers; an error that arrives later finds the innermost scope that covers its command.

use std::ops::Range;
use std::thread::ThreadId;

use pontoon_wire::event::ErrorKind;

/// One scope, open or popped and not yet asked for its error.
#[derive(Debug)]
struct Scope {
    number: u64,
    device: u64,
    thread: ThreadId,
    filter: ErrorKind,
    open: bool,
    /// Sequence numbers, as few ranges as possible, ascending.
    commands: Vec<Range<u64>>,
    error: Option<wgpu::Error>,
}

/// All scopes of a session, the innermost of each thread last.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    scopes: Vec<Scope>,
    next: u64,
}

impl Scopes {
    /// Whether commands need not be noted.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Opens a scope for this thread; how many the thread has open on this device already.
    pub fn push(&mut self, device: u64, filter: ErrorKind) -> u32 {
        let thread = std::thread::current().id();
        let depth = self.open(device, thread).count() as u32;
        self.next += 1;
        let number = self.next;
        self.scopes.push(Scope {
            number,
            device,
            thread,
            filter,
            open: true,
            commands: Vec::new(),
            error: None,
        });
        depth
    }

    fn open(&self, device: u64, thread: ThreadId) -> impl DoubleEndedIterator<Item = &Scope> {
        self.scopes.iter().filter(move |scope| scope.open && scope.device == device && scope.thread == thread)
    }

    /// Notes that this thread issues command `sequence`.
    pub fn note(&mut self, sequence: u64) {
        let thread = std::thread::current().id();
        for scope in self.scopes.iter_mut().filter(|scope| scope.open && scope.thread == thread) {
            match scope.commands.last_mut() {
                Some(last) if last.end == sequence => last.end += 1,
                _ => scope.commands.push(sequence..sequence + 1),
            }
        }
    }

    /// Closes this thread's innermost scope on `device`, which must be the one at `depth`: its number
    /// and its last command, if it has any.
    pub fn pop(&mut self, device: u64, depth: u32) -> Result<(u64, Option<u64>), &'static str> {
        let thread = std::thread::current().id();
        let count = self.open(device, thread).count();
        let Some(number) = self.open(device, thread).next_back().map(|scope| scope.number) else {
            return Err(
                "Mismatched pop_error_scope call: no error scope for this thread. Error scopes are thread-local.",
            );
        };
        if depth as usize + 1 != count {
            return Err("Mismatched pop_error_scope call: error scopes must be popped in reverse order.");
        }
        let scope = self.find(number).expect("just found");
        scope.open = false;
        Ok((number, scope.commands.last().map(|range| range.end - 1)))
    }

    fn find(&mut self, number: u64) -> Option<&mut Scope> {
        self.scopes.iter_mut().find(|scope| scope.number == number)
    }

    /// Forgets a closed scope; the error that it caught.
    pub fn resolve(&mut self, number: u64) -> Option<wgpu::Error> {
        let place = self.scopes.iter().position(|scope| scope.number == number)?;
        self.scopes.remove(place).error
    }

    /// Gives an error of command `sequence` to the scope that it belongs to, or back where there is none.
    pub fn catch(
        &mut self,
        device: u64,
        sequence: u64,
        kind: ErrorKind,
        error: wgpu::Error,
    ) -> Option<wgpu::Error> {
        let covers = |scope: &Scope| scope.commands.iter().any(|range| range.contains(&sequence));
        self.give(error, |scope| scope.device == device && scope.filter == kind && covers(scope))
    }

    /// Gives an error that arose here, in this thread, to its innermost open scope.
    pub fn catch_here(&mut self, device: u64, kind: ErrorKind, error: wgpu::Error) -> Option<wgpu::Error> {
        let thread = std::thread::current().id();
        self.give(error, |scope| {
            scope.open && scope.device == device && scope.thread == thread && scope.filter == kind
        })
    }

    fn give(&mut self, error: wgpu::Error, fits: impl Fn(&Scope) -> bool) -> Option<wgpu::Error> {
        match self.scopes.iter_mut().rev().find(|scope| fits(scope)) {
            // A scope keeps its first error.
            Some(scope) => {
                scope.error.get_or_insert(error);
                None
            }
            None => Some(error),
        }
    }
}
