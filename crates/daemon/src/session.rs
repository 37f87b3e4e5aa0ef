//! The live sessions: admission, accounts, and the end of each.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pontoon_callers::Policy;
use pontoon_transport::shared::{Bell, Shared, Sizes};
use pontoon_wire::frame::{self, code};
use pontoon_wire::hello::{Hello, RefusalKind, SharedLayout};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::admin::{AdapterRow, SessionRow};
use crate::caller::Caller;
use crate::config::Limits;
use crate::control::{self, Notice, Order};
use crate::handshake::Connection;
use crate::machine::Slot;
use crate::metrics::Totals;
use crate::pool::{Pool, Worker};
use crate::share;
use crate::stats::Page;
use crate::uploads::{Lent, Uploads};

/// One live session.
#[derive(Debug)]
struct Entry {
    caller: Caller,
    program: String,
    transport: &'static str,
    since: Instant,
    /// The guest's connection, where what it sends is kept for the tenant's next session.
    keeps: Option<OwnedFd>,
    /// The worker's process and the accounts that it keeps, once it has one.
    served: Option<(u32, Page)>,
}

/// All live sessions.
#[derive(Debug)]
pub struct Registry {
    pool: Arc<Pool>,
    limits: Limits,
    /// The greatest weight of all policies.
    most: u32,
    uploads: Uploads,
    totals: Totals,
    state: Mutex<(u64, BTreeMap<u64, Entry>)>,
}

impl Registry {
    /// No sessions yet. The policies' weights are shares of the greatest among them.
    pub fn new(pool: Arc<Pool>, limits: Limits, policies: &[Policy]) -> Self {
        let most = policies.iter().filter_map(|policy| policy.weight).max().unwrap_or(1);
        let uploads = Uploads::new(limits.kept_upload_bytes, limits.kept_upload_bytes_total);
        Self { pool, limits, most, uploads, totals: Totals::default(), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Entry>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the workers offer.
    pub fn adapters(&self) -> Vec<AdapterRow> {
        self.pool.adapters()
    }

    /// The live sessions and their accounts.
    pub fn rows(&self) -> Vec<SessionRow> {
        self.lock().1.iter().map(|(number, entry)| row(*number, entry)).collect()
    }

    /// What they and those that are over have used, for `/metrics`.
    pub fn metrics(&self) -> String {
        // Under one lock with the end of a session: nothing is counted twice, or not at all.
        let state = self.lock();
        let rows: Vec<_> = state.1.iter().map(|(number, entry)| row(*number, entry)).collect();
        self.totals.text(&rows)
    }

    /// Counts a session in, or says which limit is in the way.
    fn admit(&self, hello: &Hello, caller: &Caller, transport: &'static str) -> Result<u64, String> {
        let mut state = self.lock();
        let Limits { sessions, sessions_per_tenant, .. } = caller.limits(&self.limits);
        let (last, entries) = &mut *state;
        if entries.len() >= sessions {
            return Err(format!(
                "the host serves {sessions} sessions, its limit (limits.sessions): try again later"
            ));
        }
        let own = entries.values().filter(|entry| entry.caller.tenant == caller.tenant).count();
        if own >= sessions_per_tenant {
            return Err(format!(
                "{} has {own} sessions, the limit of one tenant (limits.sessions_per_tenant): end one first",
                caller.tenant
            ));
        }
        *last += 1;
        let entry = Entry {
            caller: caller.clone(),
            program: hello.program.replace(char::is_control, "?"),
            transport,
            since: Instant::now(),
            keeps: None,
            served: None,
        };
        entries.insert(*last, entry);
        Ok(*last)
    }

    /// Serves a greeted caller to the end.
    pub fn serve(&self, connection: &Connection, hello: &Hello, caller: &Caller) {
        let limits = caller.limits(&self.limits);
        let mut sharing = match (hello.shared_memory, connection) {
            (true, Connection::Unix(_)) => Sharing::Descriptors,
            (true, Connection::Vsock(_, _, Some(machine))) => {
                machine.take(&limits, (TO_HOST, TO_GUEST)).map_or(Sharing::Nothing, Sharing::Machine)
            }
            _ => Sharing::Nothing,
        };
        let transport = match sharing {
            Sharing::Nothing => connection.name(),
            Sharing::Descriptors => "unix+arena",
            Sharing::Machine(_) => "vsock+arena",
        };
        let number = match self.admit(hello, caller, transport) {
            Ok(number) => number,
            Err(message) => return connection.refuse(RefusalKind::Busy, &message),
        };
        log::info!(
            "session {number}: {} over {transport}, tenant {}{}",
            caller.facts.describe(),
            caller.tenant,
            caller.policy.as_ref().map(|policy| format!(", policy {}", policy.name)).unwrap_or_default()
        );
        let lent = match sharing {
            Sharing::Nothing => self.lend(number, connection, caller),
            _ => None,
        };
        match self.hand_over(number, connection, caller, &sharing, lent.as_ref()) {
            Ok(worker) => {
                let woken = matches!(sharing, Sharing::Machine(_));
                let left = self.see_out(number, worker, connection, woken, lent.as_ref());
                if let (Sharing::Machine(slot), true) = (&mut sharing, left) {
                    slot.is_left();
                }
            }
            Err(message) => {
                connection.refuse(RefusalKind::Unavailable, &message);
                log::error!("session {number}: {message}");
                lent.iter().for_each(|lent| self.uploads.session_ends(lent));
            }
        }
        self.close(number);
        lent.into_iter().for_each(|lent| self.uploads.take_back(lent));
    }

    /// What the host keeps of the caller's uploads; the session works without it too.
    fn lend(&self, number: u64, connection: &Connection, caller: &Caller) -> Option<Lent> {
        if !self.uploads.is_on() {
            return None;
        }
        let key = caller.lasting_name();
        let deadline = Instant::now() + GRACE;
        while key.is_some() && self.is_left(&key) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let (Some(entry), true) = (self.lock().1.get_mut(&number), key.is_some()) {
            entry.keeps = connection.as_fd().try_clone_to_owned().ok();
        }
        let lent = self.uploads.lend(key);
        lent.map_err(|error| log::warn!("session {number}: uploads are not kept: {error}")).ok()
    }

    /// Whether a session of the same guest is about to end, since it has gone: a program that is run again at once
    /// should find what its last run has sent.
    fn is_left(&self, key: &Option<String>) -> bool {
        self.lock().1.values().any(|entry| {
            let Some(connection) = &entry.keeps else { return false };
            let mut set = [PollFd::new(connection, pontoon_transport::GONE)];
            entry.caller.lasting_name() == *key
                && matches!(rustix::event::poll(&mut set, Some(&Timespec::default())), Ok(1..))
        })
    }

    /// Gives the connection to a worker.
    fn hand_over(
        &self,
        session: u64,
        connection: &Connection,
        caller: &Caller,
        sharing: &Sharing,
        lent: Option<&Lent>,
    ) -> Result<Worker, String> {
        let limits = caller.limits(&self.limits);
        let memory = match sharing {
            Sharing::Nothing => None,
            Sharing::Descriptors => {
                Some(Memory::create(&limits).map_err(|error| format!("no memory to share: {error}"))?)
            }
            Sharing::Machine(slot) => Some(Memory::within(slot)),
        };
        if let Some(memory) = &memory {
            memory.offer(connection).map_err(|error| format!("the guest has gone: {error}"))?;
        }
        // A worker that was ready may have been killed since: then the next one serves.
        for _ in 0..3 {
            let mut worker = self.pool.take()?;
            share::give(worker.child.id(), caller.weight(), self.most);
            let (page, fd) =
                Page::create().map_err(|error| format!("no memory for the session's accounts: {error}"))?;
            let order = Order::Serve {
                session,
                limits: limits.clone(),
                adapter: caller.adapter(),
                shared: memory.as_ref().map(|memory| memory.layout),
                kept: lent.map(|lent| lent.bytes),
                line: connection.line(),
            };
            let mut descriptors = vec![connection.as_fd(), fd.as_fd()];
            descriptors.extend(memory.iter().flat_map(Memory::descriptors));
            descriptors.extend(lent.iter().flat_map(|lent| [lent.shelf.as_fd(), lent.additions.as_fd()]));
            match control::send(&worker.control, &order, &descriptors) {
                Ok(()) => {
                    if let Some(entry) = self.lock().1.get_mut(&session) {
                        entry.served = Some((worker.child.id(), page));
                    }
                    return Ok(worker);
                }
                Err(error) => {
                    log::warn!("a ready worker is gone: {error}");
                    let _ = worker.child.kill();
                    let _ = worker.child.wait();
                }
            }
        }
        Err("workers end as soon as they are ready; the daemon's log says why".into())
    }

    /// Waits for the worker's end and makes sure that the guest hears why. Whether the guest has ended it itself.
    fn see_out(
        &self,
        number: u64,
        mut worker: Worker,
        connection: &Connection,
        woken: bool,
        lent: Option<&Lent>,
    ) -> bool {
        let (ended, welcomed) = await_end(&worker, connection);
        lent.iter().for_each(|lent| self.uploads.session_ends(lent));
        let status = end_process(&mut worker.child);
        let (message, told) = ended.unwrap_or_else(|| (describe(status), false));
        if !told {
            connection.end(&message, woken && welcomed);
        }
        let used = self.lock().1.get(&number).map(|entry| row(number, entry));
        if let Some(row) = used {
            log::info!(
                "session {number} over after {:.1} s: {message} ({} commands, {} bytes of data sent and {} named, {} round trips, {:.2} s of GPU, {} errors)",
                row.seconds,
                row.commands,
                row.uploaded_bytes,
                row.named_bytes,
                row.round_trips,
                row.gpu_seconds,
                row.errors
            );
        }
        message == control::LEFT
    }

    /// Takes a session that is over out of the list; what it has used is counted on.
    fn close(&self, number: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.1.remove(&number).filter(|entry| entry.served.is_some()) {
            self.totals.ended(&row(number, &entry));
        }
    }
}

/// Sizes of the rings.
const TO_HOST: u32 = 1 << 20;
const TO_GUEST: u32 = 1 << 18;

/// The transport's view of a layout.
pub fn sizes(layout: SharedLayout) -> Sizes {
    Sizes {
        to_host: layout.to_host.into(),
        to_guest: layout.to_guest.into(),
        upload: layout.upload,
        download: layout.download,
    }
}

/// What memory a session shares with its guest.
enum Sharing {
    Nothing,
    /// Memory of its own, passed on by descriptors.
    Descriptors,
    /// A part of what the guest's machine shares.
    Machine(Slot),
}

/// Memory for one session, on its way to guest and worker. The supervisor makes it and passes it on: a
/// worker may send no descriptors.
struct Memory<'a> {
    layout: SharedLayout,
    place: Place<'a>,
}

enum Place<'a> {
    /// The memory, and the bells that wake host and guest.
    Own(OwnedFd, [Bell; 2]),
    Machine(&'a Slot),
}

impl<'a> Memory<'a> {
    fn create(limits: &Limits) -> Result<Self, pontoon_transport::Error> {
        let layout = SharedLayout {
            to_host: TO_HOST,
            to_guest: TO_GUEST,
            upload: limits.upload_bytes,
            download: limits.download_bytes,
            place: None,
        };
        let (_, memory) = Shared::create(sizes(layout))?;
        Ok(Self { layout, place: Place::Own(memory, [Bell::new()?, Bell::new()?]) })
    }

    fn within(slot: &'a Slot) -> Self {
        Self { layout: slot.layout, place: Place::Machine(slot) }
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.place {
            Place::Own(memory, bells) => vec![memory.as_fd(), bells[0].as_fd(), bells[1].as_fd()],
            Place::Machine(slot) => vec![slot.as_fd()],
        }
    }

    /// Tells the guest. A machine has its memory already.
    fn offer(&self, connection: &Connection) -> Result<(), pontoon_transport::Error> {
        let mut frame = Vec::new();
        frame::put_encoded(&mut frame, code::SHARED, &self.layout);
        match &self.place {
            Place::Own(..) => {
                pontoon_transport::send_with_descriptors(connection, &frame, &self.descriptors())
            }
            Place::Machine(_) => pontoon_transport::send_all(connection, &frame),
        }
    }
}

fn row(session: u64, entry: &Entry) -> SessionRow {
    let (worker, (usage, bytes)) = match &entry.served {
        Some((worker, page)) => (*worker, page.read()),
        None => Default::default(),
    };
    SessionRow {
        session,
        tenant: entry.caller.tenant.clone(),
        who: entry.caller.facts.describe(),
        container: entry.caller.facts.container.clone(),
        policy: entry.caller.policy.as_ref().map(|policy| policy.name.clone()),
        program: entry.program.clone(),
        transport: entry.transport.to_owned(),
        worker,
        seconds: entry.since.elapsed().as_secs_f64(),
        memory_bytes: usage.memory_bytes,
        objects: usage.objects,
        gpu_seconds: usage.gpu_nanoseconds as f64 / 1e9,
        commands: usage.commands,
        submissions: usage.submissions,
        bytes,
        uploaded_bytes: usage.uploaded_bytes,
        named_bytes: usage.named_bytes,
        round_trips: usage.round_trips,
        errors: usage.errors,
    }
}

/// How long a worker may take to end once it is over, or once its guest has gone.
const GRACE: Duration = Duration::from_secs(3);

/// Waits until the worker says that it is over, or ends, or is left by its guest and does not notice: a
/// worker can be stuck in a driver, or on something that its guest did to it. Also whether it welcomed its guest.
fn await_end(worker: &Worker, connection: &Connection) -> (Option<(String, bool)>, bool) {
    let (mut deadline, mut welcomed): (Option<Instant>, bool) = (None, false);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return (None, welcomed);
        }
        let guest = if deadline.is_some() { PollFlags::empty() } else { pontoon_transport::GONE };
        let mut set = [PollFd::new(&worker.control, PollFlags::IN), PollFd::new(connection, guest)];
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match rustix::event::poll(&mut set[..if deadline.is_some() { 1 } else { 2 }], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return (None, welcomed),
            Ok(_) => {}
        }
        if !set[0].revents().is_empty() {
            match control::receive::<Notice>(&worker.control) {
                Ok(Some((Notice::Welcomed, _))) => welcomed = true,
                Ok(Some((Notice::Ended { message, told }, _))) => return (Some((message, told)), welcomed),
                _ => return (None, welcomed),
            }
            continue;
        }
        if !set[1].revents().is_empty() {
            deadline = Some(Instant::now() + GRACE);
        }
    }
}

/// Waits a little for a worker that is over, then kills it.
fn end_process(child: &mut Child) -> std::io::Result<ExitStatus> {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()
}

/// The sentence for a worker that ended without one of its own.
fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(9), _) => "the session's worker was killed on the host".into(),
            (Some(signal), _) => format!("the GPU driver crashed in the session's worker (signal {signal})"),
            (_, code) => format!("the session's worker ended with code {}", code.unwrap_or(-1)),
        },
        Err(error) => format!("the session's worker is gone: {error}"),
    }
}
