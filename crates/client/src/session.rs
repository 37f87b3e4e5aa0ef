//! One connection to a host: sending commands, waiting for answers, ending well.

mod packing;
mod payload;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pontoon_transport::{Error as LinkError, Sender, Socket};
use pontoon_uploads::Ledger;
use pontoon_wire::event::{ErrorKind, Reply};
use pontoon_wire::frame::{self, Forget, FrameBuffer, code};
use pontoon_wire::{Command, Id, Kind};

use crate::adapter::Offer;
use crate::connect::Connection;
use crate::ids::{Names, Object};
use crate::incoming::{Incoming, lost};
use crate::mapped::Storage;
use crate::state::{RemoteError, State};
use packing::Packing;

use pontoon_transport::shared::Upload;

/// Bytes of commands that wait here before the host is woken for them.
const BATCH: usize = 32 * 1024;

/// The sending half.
pub(crate) struct Outgoing {
    /// Nothing in a session that never was.
    sender: Option<Sender>,
    frame: Vec<u8>,
    sequence: u64,
    pub names: Names,
    unflushed: usize,
    /// What the host keeps of uploads, if it does.
    kept: Option<Ledger>,
    /// Where data is compressed that travels over the socket, if it is.
    packing: Option<Packing>,
    upload: Option<Upload>,
}

/// One session.
pub(crate) struct Session {
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
    state: Mutex<State>,
    changed: Condvar,
    /// Scopes that are not resolved; while there are none, commands are not noted.
    scopes: AtomicUsize,
    dead: AtomicBool,
    trips: AtomicU64,
    /// Sequence number of the last command that is known to be executed.
    settled: AtomicU64,
    socket: Option<Arc<Socket>>,
    pub offers: Vec<Offer>,
    /// Most bytes of one command's payload.
    pub bytes_in_flight: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("dead", &self.is_dead()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub fn new(connection: Connection) -> Result<Arc<Self>, LinkError> {
        let mut frames = FrameBuffer::default();
        frames.space().extend_from_slice(&connection.early);
        let (upload, download) = match &connection.shared {
            Some(shared) => (Some(shared.upload()?), Some(Arc::new(shared.download()?))),
            None => (None, None),
        };
        let outgoing = Outgoing {
            sender: Some(connection.sender),
            frame: Vec::new(),
            sequence: 0,
            names: Names::default(),
            unflushed: 0,
            kept: connection.welcome.kept.as_ref().map(Ledger::new),
            packing: connection.compress.then(Packing::default),
            upload,
        };
        let incoming = Incoming { receiver: Some(connection.receiver), frames, download };
        let offers = connection.welcome.adapters.iter().map(Offer::from).collect();
        let mut session = Self::assemble(outgoing, incoming, Some(connection.socket), offers);
        session.bytes_in_flight = connection.welcome.bytes_in_flight;
        Ok(Arc::new(session))
    }

    /// A session that is over: its devices exist and do nothing.
    pub fn over() -> Arc<Self> {
        let outgoing = Outgoing {
            sender: None,
            frame: Vec::new(),
            sequence: 0,
            names: Names::default(),
            unflushed: 0,
            kept: None,
            packing: None,
            upload: None,
        };
        let incoming = Incoming { receiver: None, frames: FrameBuffer::default(), download: None };
        let session = Self::assemble(outgoing, incoming, None, Vec::new());
        session.dead.store(true, Ordering::Relaxed);
        lock(&session.state).dead = Some("never connected".into());
        Arc::new(session)
    }

    fn assemble(
        outgoing: Outgoing,
        incoming: Incoming,
        socket: Option<Arc<Socket>>,
        offers: Vec<Offer>,
    ) -> Self {
        Self {
            outgoing: Mutex::new(outgoing),
            incoming: Mutex::new(incoming),
            state: Mutex::default(),
            changed: Condvar::new(),
            scopes: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            trips: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            socket,
            offers,
            bytes_in_flight: 0,
        }
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Whether this session never had a host ([`Session::over`]).
    pub fn never_was(&self) -> bool {
        self.socket.is_none()
    }

    pub fn round_trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn die(&self, reason: &str) {
        self.dead.store(true, Ordering::Relaxed);
        lock(&self.state).die(reason);
        if let Some(socket) = &self.socket {
            socket.shut_down();
        }
        self.changed.notify_all();
    }

    // --- Sending ---

    pub fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        lock(&self.outgoing)
    }

    /// Sends one frame that `fill` writes.
    #[inline]
    pub fn send(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.send_locked(&mut self.outgoing(), fill);
    }

    /// As [`Session::send`], for who holds the sending half.
    #[inline]
    pub fn send_locked(&self, out: &mut Outgoing, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.is_dead() {
            return;
        }
        out.sequence += 1;
        if self.scopes.load(Ordering::Relaxed) > 0 {
            lock(&self.state).scopes.note(out.sequence);
        }
        out.frame.clear();
        fill(&mut out.frame);
        let frame = std::mem::take(&mut out.frame);
        self.push(out, &frame);
        out.unflushed += frame.len();
        out.frame = frame;
        if out.unflushed > BATCH {
            self.flush_locked(out);
        }
    }

    /// Sends one command.
    pub fn command(&self, command: &Command) {
        self.send(|out| frame::put_encoded(out, code::COMMAND, command));
    }

    /// Names a new object and sends the command that creates it.
    pub fn create<K: Kind>(self: &Arc<Self>, command: impl FnOnce(Id<K>) -> Command) -> Arc<Object<K>> {
        let mut out = self.outgoing();
        let id = out.names.take();
        self.send_locked(&mut out, |frame| frame::put_encoded(frame, code::COMMAND, &command(id)));
        drop(out);
        Object::new(self, id)
    }

    /// Gives a name back, telling the host unless it knows.
    pub fn forget(&self, forget: Forget, tell: bool) {
        let mut out = self.outgoing();
        if tell {
            self.send_locked(&mut out, |frame| forget.put(frame));
        }
        out.names.give_back(forget.kind, forget.id);
    }

    fn push(&self, out: &mut Outgoing, mut bytes: &[u8]) {
        let Some(sender) = &mut out.sender else { return };
        loop {
            match sender.push(bytes) {
                Ok(len) if len == bytes.len() => return,
                Ok(len) => bytes = &bytes[len..],
                Err(error) => return self.die(&lost(&error)),
            }
            if let Err(error) = sender.wait_for_room(Duration::from_millis(1)) {
                // The host may have said why.
                self.look();
                return self.die(&lost(&error));
            }
            self.read_now();
            if self.is_dead() {
                return;
            }
        }
    }

    /// Makes sure that the host sees everything sent so far.
    pub fn flush(&self) {
        self.flush_locked(&mut self.outgoing());
    }

    /// As [`Session::flush`], for who holds the sending half.
    pub fn flush_locked(&self, out: &mut Outgoing) {
        out.unflushed = 0;
        let Some(sender) = &mut out.sender else { return };
        while !self.is_dead() {
            match sender.flush() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    self.look();
                    return self.die(&lost(&error));
                }
            }
            if let Err(error) = sender.wait_for_room(Duration::from_millis(1)) {
                self.look();
                return self.die(&lost(&error));
            }
            self.read_now();
        }
    }

    // --- Receiving ---

    /// Takes in what is here, without waiting, unless another thread is doing so.
    pub fn read_now(&self) {
        self.read_for(Duration::ZERO);
    }

    /// As [`Session::read_now`], and notices a host that is gone, which costs a system call.
    pub fn look(&self) {
        self.read_for(Duration::from_nanos(1));
    }

    fn read_for(&self, timeout: Duration) {
        let mut state = lock(&self.state);
        if state.reading || state.dead.is_some() {
            return;
        }
        state.reading = true;
        drop(state);
        self.read(Some(timeout));
    }

    /// Waits until `check` finds what it looks for. `None` where the session ends or time is up first.
    pub fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(found) = check(&mut state) {
                return Some(found);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if state.dead.is_some() || left == Some(Duration::ZERO) {
                return None;
            }
            if state.reading {
                state = match left {
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(left) => {
                        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                continue;
            }
            state.reading = true;
            drop(state);
            self.read(left);
            state = lock(&self.state);
        }
    }

    /// Reads and takes in, as the one reader. Waits up to `timeout` if nothing is here.
    fn read(&self, timeout: Option<Duration>) {
        let mut incoming = lock(&self.incoming);
        let result = incoming.receive(timeout);
        let download = incoming.download.clone();
        drop(incoming);
        let place = |at: u64, len: usize| -> Option<Storage> {
            download.as_ref().and_then(|download| Storage::arena(download, at, len))
        };
        let mut state = lock(&self.state);
        let (arrivals, end) = result;
        for arrival in arrivals {
            state.take_in(arrival, &place);
        }
        if let Some(reason) = end {
            state.die(&reason);
        }
        let reason = state.dead.clone().filter(|_| !self.dead.swap(true, Ordering::Relaxed));
        state.reading = false;
        drop(state);
        self.changed.notify_all();
        if let Some(reason) = reason {
            log::warn!("Pontoon session over: {reason}");
        }
    }

    /// Runs the program's callbacks whose time has come. Call with no lock held.
    pub fn run_callbacks(&self) {
        loop {
            // One at a time: where one panics, the others are still there.
            let ready = lock(&self.state).ready.pop_front();
            match ready {
                Some(callback) => callback(),
                None => return,
            }
        }
    }

    // --- Asking ---

    /// Asks the host and waits for its answer. `None` where the session ends first.
    pub fn ask(&self, command: impl FnOnce(u32) -> Command) -> Option<Reply> {
        self.ask_until(None, command)
    }

    /// Names a new object, asks the host for it and waits for its answer.
    pub fn ask_for<K: Kind>(&self, command: impl FnOnce(u32, Id<K>) -> Command) -> (Id<K>, Option<Reply>) {
        let call = self.next_call();
        self.trips.fetch_add(1, Ordering::Relaxed);
        let mut out = self.outgoing();
        let id = out.names.take();
        let question = command(call, id);
        self.send_locked(&mut out, |frame| frame::put_encoded(frame, code::COMMAND, &question));
        self.flush_locked(&mut out);
        let sequence = out.sequence;
        drop(out);
        (id, self.await_reply(None, call, sequence))
    }

    fn next_call(&self) -> u32 {
        let mut state = lock(&self.state);
        // Number 0 asks without waiting.
        state.next_call = state.next_call.checked_add(1).unwrap_or(1);
        let call = state.next_call;
        state.replies.insert(call, None);
        call
    }

    fn await_reply(&self, deadline: Option<Instant>, call: u32, sequence: u64) -> Option<Reply> {
        let reply = self.wait(deadline, |state| state.replies.get_mut(&call).and_then(Option::take));
        lock(&self.state).replies.remove(&call);
        if reply.is_some() {
            self.settled.fetch_max(sequence, Ordering::Relaxed);
        }
        reply
    }

    /// As [`Session::ask`]; `None` also where time is up first.
    pub fn ask_until(
        &self,
        deadline: Option<Instant>,
        command: impl FnOnce(u32) -> Command,
    ) -> Option<Reply> {
        let call = self.next_call();
        let sequence = self.send_question(&command(call));
        self.await_reply(deadline, call, sequence)
    }

    /// Sends a question at once, and counts it; its sequence number.
    pub fn send_question(&self, question: &Command) -> u64 {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let mut out = self.outgoing();
        self.send_locked(&mut out, |frame| frame::put_encoded(frame, code::COMMAND, question));
        self.flush_locked(&mut out);
        out.sequence
    }

    /// Waits until the host has executed command `sequence` and its errors are here.
    pub fn settle(&self, sequence: u64) {
        if self.settled.load(Ordering::Relaxed) < sequence {
            self.ask(|call| Command::Barrier { call });
        }
    }

    /// Whether every command sent is known to be executed.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed) >= self.outgoing().sequence
    }

    // --- Error scopes ---

    pub fn push_scope(&self, device: u64, filter: ErrorKind) -> u32 {
        let mut state = lock(&self.state);
        self.scopes.fetch_add(1, Ordering::Relaxed);
        state.scopes.push(device, filter)
    }

    pub fn pop_scope(&self, device: u64, depth: u32) -> Result<(u64, Option<u64>), &'static str> {
        lock(&self.state).scopes.pop(device, depth)
    }

    /// The error of a popped scope; its commands must be settled.
    pub fn resolve_scope(&self, number: u64) -> Option<wgpu::Error> {
        let mut state = lock(&self.state);
        let error = state.scopes.resolve(number);
        if state.scopes.is_empty() {
            self.scopes.store(0, Ordering::Relaxed);
        }
        error
    }

    /// Reports an error that was found on this side.
    pub fn local_error(&self, device: u64, kind: ErrorKind, message: String) {
        let error = RemoteError { sequence: 0, message }.into_wgpu(kind);
        {
            let mut state = lock(&self.state);
            if let Some(error) = state.scopes.catch_here(device, kind, error) {
                state.uncaptured(device, error);
            }
        }
        self.run_callbacks();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            socket.shut_down();
        }
    }
}
