//! What the host keeps of uploads from session to session: one shelf of chunks for each guest that it knows again, all
//! of them within bounds.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pontoon_uploads::{Additions, Chunk, Digest, Error, Shelf, Source};

/// How long a session waits for what its tenant's last one sent: programs are run again at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most shelves: each is a descriptor.
const MAX_SHELVES: usize = 64;

/// The shelves of all guests that are known again.
#[derive(Debug)]
pub struct Uploads {
    /// Most bytes kept for one, and most that its live sessions add.
    per_tenant: u64,
    /// Most bytes of all shelves and of what live sessions may still add.
    total: u64,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with each session that begins or ends.
    clock: u64,
    /// By the name that stands for the same guest later; sessions without one are together under none.
    tenants: BTreeMap<Option<String>, Tenant>,
    /// Every shelf that somebody still has: sessions keep the one that they began with.
    versions: Vec<Weak<Shelf>>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Nothing where nothing is kept.
    shelf: Option<Arc<Shelf>>,
    /// When each chunk was last sent or named.
    used: Vec<u64>,
    /// When a session last began or ended.
    last: u64,
    /// Live sessions, and bytes that they may add.
    live: usize,
    lent: u64,
    /// Sessions that are over and whose uploads are being put on the shelf.
    settling: usize,
}

/// What a session has while it lives.
#[derive(Debug)]
pub struct Lent {
    key: Option<String>,
    /// The chunks that are kept when it began.
    pub shelf: Arc<Shelf>,
    /// Where it adds.
    pub additions: Additions,
    /// How much it may add, in bytes.
    pub bytes: u64,
}

/// A chunk that may be on the next shelf.
struct Candidate<'a> {
    used: u64,
    source: Source<'a>,
}

impl Uploads {
    /// Nothing kept yet; bounds in bytes. `per_tenant` 0 keeps nothing, ever.
    pub fn new(per_tenant: u64, total: u64) -> Self {
        Self { per_tenant, total, state: Mutex::default(), settled: Condvar::new() }
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.per_tenant > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new session gets. Without a `key`, a name that stands for the same guest later, nothing is kept after it.
    ///
    /// # Errors
    /// What the system said.
    pub fn lend(&self, key: Option<String>) -> Result<Lent, Error> {
        let mut state = self.lock();
        let deadline = Instant::now() + PATIENCE;
        while key.is_some() && state.tenants.get(&key).is_some_and(|tenant| tenant.settling > 0) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (bytes, shelf) = state.begin_session(&key, self.per_tenant, self.total);
        drop(state);
        let made = || {
            let shelf = shelf.map_or_else(|| Shelf::build(&[]).map(Arc::new), Ok)?;
            Ok((shelf, Additions::create(bytes)?))
        };
        match made() {
            Ok((shelf, additions)) => Ok(Lent { key, shelf, additions, bytes }),
            Err(error) => {
                self.lock().end_session(&key, bytes);
                Err(error)
            }
        }
    }

    /// Says that a session is over, before its worker is seen out: the guest's next session waits for
    /// [`Uploads::take_back`].
    pub fn session_ends(&self, lent: &Lent) {
        self.lock().tenants.entry(lent.key.clone()).or_default().settling += 1;
    }

    /// Puts what a session sent on its guest's shelf, the latest first and the longest unused left out. The session's
    /// worker must be gone, and [`Uploads::session_ends`] have been called.
    pub fn take_back(&self, lent: Lent) {
        if lent.key.is_some()
            && let Err(error) = self.settle(&lent)
        {
            log::warn!(
                "what a session of {} has sent is not kept: {error}",
                lent.key.as_deref().unwrap_or_default()
            );
        }
        let mut state = self.lock();
        if let Some(tenant) = state.tenants.get_mut(&lent.key) {
            tenant.settling -= 1;
        }
        state.end_session(&lent.key, lent.bytes);
        self.settled.notify_all();
    }

    fn settle(&self, lent: &Lent) -> Result<(), Error> {
        let (added, named) = lent.additions.records()?;
        let lent_chunks = || named.iter().filter_map(|number| lent.shelf.chunks().get(*number as usize));
        if added.is_empty() {
            let names: HashSet<Digest> = lent_chunks().map(|chunk| chunk.digest).collect();
            self.lock().touch(&lent.key, &names);
            return Ok(());
        }
        loop {
            let (current, used, now) = self.lock().begin_shelf(&lent.key);
            let old = current.iter().flat_map(|shelf| shelf.chunks().iter().map(move |chunk| (shelf, chunk)));
            let mut candidates: Vec<Candidate<'_>> = Vec::new();
            candidates.extend(added.iter().map(|chunk| {
                let memory = lent.additions.as_fd();
                let source =
                    Source { digest: chunk.digest, len: chunk.len, memory, at: chunk.at, doubtful: true };
                Candidate { used: now, source }
            }));
            candidates
                .extend(lent_chunks().map(|chunk| Candidate { used: now, source: on(&lent.shelf, chunk) }));
            candidates.extend(
                old.zip(used).map(|((shelf, chunk), used)| Candidate { used, source: on(shelf, chunk) }),
            );
            let chosen = choose(candidates, self.per_tenant);
            let sources: Vec<_> = chosen.iter().map(|candidate| candidate.source).collect();
            let shelf = Arc::new(Shelf::build(&sources)?);
            let used = chosen.iter().map(|candidate| candidate.used).collect();
            if self.lock().replace(lent, current.as_ref(), shelf, used, self.total) {
                return Ok(());
            }
        }
    }
}

/// A chunk of a shelf as the source of another.
fn on<'a>(shelf: &'a Shelf, chunk: &Chunk) -> Source<'a> {
    Source { digest: chunk.digest, len: chunk.len, memory: shelf.as_fd(), at: chunk.at, doubtful: false }
}

/// Each chunk once, the last used first, within `bytes`.
fn choose(mut candidates: Vec<Candidate<'_>>, bytes: u64) -> Vec<Candidate<'_>> {
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.used));
    let (mut names, mut left) = (HashSet::new(), bytes);
    candidates.retain(|Candidate { source: Source { digest, len, .. }, .. }| {
        let fits = u64::from(*len) <= left && names.insert(*digest);
        left -= if fits { u64::from(*len) } else { 0 };
        fits
    });
    candidates.truncate(pontoon_wire::limits::MAX_KEPT_CHUNKS);
    candidates
}

impl State {
    /// Bytes of all shelves that somebody has, and that live sessions may add.
    fn taken(&mut self) -> u64 {
        self.versions.retain(|version| version.strong_count() > 0);
        let kept: u64 = self.versions.iter().filter_map(Weak::upgrade).map(|shelf| shelf.bytes()).sum();
        kept + self.tenants.values().map(|tenant| tenant.lent).sum::<u64>()
    }

    /// Forgets what was unused for longest of all others that have no live session; whether there was any.
    fn forget_oldest(&mut self, but: &Option<String>) -> bool {
        let idle = |(name, tenant): &(&Option<String>, &Tenant)| {
            *name != but && tenant.shelf.is_some() && tenant.live == 0 && tenant.settling == 0
        };
        let oldest = self.tenants.iter().filter(idle).min_by_key(|(_, tenant)| tenant.last);
        let Some(name) = oldest.map(|(name, _)| name.clone()) else { return false };
        self.tenants.remove(&name);
        true
    }

    /// Bytes that a new session may add, and the shelf that it begins with. Where there is no room, what others have
    /// not used for longest goes; then it does without.
    fn begin_session(
        &mut self,
        key: &Option<String>,
        per_tenant: u64,
        total: u64,
    ) -> (u64, Option<Arc<Shelf>>) {
        let lent = self.tenants.get(key).map_or(0, |tenant| tenant.lent);
        let wanted = per_tenant.saturating_sub(lent);
        while total.saturating_sub(self.taken()) < wanted && self.forget_oldest(key) {}
        let taken = self.taken();
        let bytes = total.saturating_sub(taken).min(wanted);
        self.clock += 1;
        let tenant = self.tenants.entry(key.clone()).or_default();
        tenant.last = self.clock;
        tenant.live += 1;
        tenant.lent += bytes;
        // Old shelves that sessions hold on to may have taken all there is.
        (bytes, tenant.shelf.clone().filter(|_| taken <= total))
    }

    fn end_session(&mut self, key: &Option<String>, bytes: u64) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.live -= 1;
        tenant.lent -= bytes;
        if tenant.live == 0 && tenant.settling == 0 && tenant.shelf.is_none() {
            self.tenants.remove(key);
        }
    }

    fn touch(&mut self, key: &Option<String>, names: &HashSet<Digest>) {
        self.clock += 1;
        let now = self.clock;
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let Some(shelf) = &tenant.shelf else { return };
        for (chunk, used) in shelf.chunks().iter().zip(&mut tenant.used) {
            if names.contains(&chunk.digest) {
                *used = now;
            }
        }
        tenant.last = now;
    }

    /// The shelf that the next one is made from, when its chunks were used, and the time.
    fn begin_shelf(&mut self, key: &Option<String>) -> (Option<Arc<Shelf>>, Vec<u64>, u64) {
        self.clock += 1;
        let tenant = self.tenants.get(key);
        let shelf = tenant.and_then(|tenant| tenant.shelf.clone());
        (shelf, tenant.map(|tenant| tenant.used.clone()).unwrap_or_default(), self.clock)
    }

    /// Puts a shelf in the place of the one that it was made from, if there is room. Whether it is over: the other may
    /// have been replaced meanwhile.
    fn replace(
        &mut self,
        lent: &Lent,
        old: Option<&Arc<Shelf>>,
        new: Arc<Shelf>,
        used: Vec<u64>,
        total: u64,
    ) -> bool {
        let there = self.tenants.get(&lent.key).and_then(|tenant| tenant.shelf.as_ref());
        let same = match (there, old) {
            (Some(there), Some(old)) => Arc::ptr_eq(there, old),
            (None, None) => true,
            _ => false,
        };
        if !same {
            return false;
        }
        // The old one goes with this, unless sessions hold on to it; what the session might have added is here now.
        let known = 2 + usize::from(old.is_some_and(|old| Arc::ptr_eq(old, &lent.shelf)));
        let freed =
            old.filter(|old| Arc::strong_count(old) <= known).map_or(0, |old| old.bytes()) + lent.bytes;
        while self.taken() + new.bytes() > total + freed || self.shelves() >= MAX_SHELVES && old.is_none() {
            if !self.forget_oldest(&lent.key) {
                return true;
            }
        }
        self.versions.push(Arc::downgrade(&new));
        self.clock += 1;
        let tenant = self.tenants.entry(lent.key.clone()).or_default();
        (tenant.shelf, tenant.used, tenant.last) = (Some(new), used, self.clock);
        true
    }

    fn shelves(&self) -> usize {
        self.tenants.values().filter(|tenant| tenant.shelf.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk takes a page, and a shelf one more for its table.
    const CHUNK: u64 = 4096;

    fn key(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    fn end(uploads: &Uploads, lent: Lent) {
        uploads.session_ends(&lent);
        uploads.take_back(lent);
    }

    /// A session that sends chunks filled with these; how many it found.
    fn session(uploads: &Uploads, tenant: &str, fills: &[u8]) -> usize {
        let mut lent = uploads.lend(key(tenant)).unwrap();
        let known = lent.shelf.chunks().len();
        for fill in fills {
            lent.additions.add(&[*fill; CHUNK as usize]).unwrap();
        }
        end(uploads, lent);
        known
    }

    fn taken(uploads: &Uploads) -> u64 {
        uploads.lock().taken()
    }

    #[test]
    fn a_tenant_finds_what_it_sent_and_nobody_else_does() {
        let uploads = Uploads::new(10 * CHUNK, 100 * CHUNK);
        assert_eq!(session(&uploads, "a", &[1, 2]), 0);
        assert_eq!(session(&uploads, "b", &[]), 0);
        assert_eq!(session(&uploads, "a", &[2, 3]), 2);
        assert_eq!(session(&uploads, "a", &[]), 3);
        assert_eq!(taken(&uploads), 4 * CHUNK, "three chunks and their table");
        assert_eq!(uploads.lock().tenants.len(), 1);
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let uploads = Uploads::new(3 * CHUNK, 100 * CHUNK);
        session(&uploads, "a", &[1, 2, 3]);
        let mut lent = uploads.lend(key("a")).unwrap();
        let one = pontoon_uploads::digest(&[1; CHUNK as usize]);
        let number = lent.shelf.chunks().iter().position(|chunk| chunk.digest == one).unwrap();
        lent.additions.name(number as u32).unwrap();
        end(&uploads, lent);
        session(&uploads, "a", &[4, 5]);
        let shelf = uploads.lend(key("a")).unwrap().shelf;
        let names: HashSet<_> = shelf.chunks().iter().map(|chunk| chunk.digest).collect();
        assert_eq!(names, [1, 4, 5].map(|fill| pontoon_uploads::digest(&[fill; CHUNK as usize])).into());
    }

    #[test]
    fn all_together_stay_within_the_total() {
        let uploads = Uploads::new(4 * CHUNK, 12 * CHUNK);
        for tenant in ["a", "b", "c", "d"] {
            session(&uploads, tenant, &[1, 2, 3, 4]);
            assert!(taken(&uploads) <= 12 * CHUNK, "{}", taken(&uploads));
        }
        assert_eq!(session(&uploads, "a", &[]), 0, "the oldest shelf went");
        let lent: Vec<_> = (0..5).map(|at| uploads.lend(key(&format!("x{at}"))).unwrap()).collect();
        let bytes: Vec<_> = lent.iter().map(|lent| lent.bytes / CHUNK).collect();
        assert_eq!(bytes, [4, 4, 4, 0, 0], "what live sessions may add counts too");
        lent.into_iter().for_each(|lent| end(&uploads, lent));
        assert_eq!(taken(&uploads), 0);
    }

    #[test]
    fn live_sessions_of_one_share_what_one_may_add_and_push_nobody_out() {
        let uploads = Uploads::new(4 * CHUNK, 100 * CHUNK);
        session(&uploads, "other", &[1]);
        let lent: Vec<_> = (0..3).map(|_| uploads.lend(key("a")).unwrap()).collect();
        assert_eq!(lent.iter().map(|lent| lent.bytes / CHUNK).collect::<Vec<_>>(), [4, 0, 0]);
        lent.into_iter().for_each(|lent| end(&uploads, lent));
        assert_eq!(session(&uploads, "other", &[]), 1);
    }

    #[test]
    fn old_shelves_that_sessions_hold_on_to_count() {
        let uploads = Uploads::new(4 * CHUNK, 12 * CHUNK);
        let mut held = Vec::new();
        for fill in 0..40 {
            session(&uploads, "a", &[fill]);
            held.push(uploads.lend(key("a")).unwrap());
            assert!(taken(&uploads) <= 12 * CHUNK, "{}", taken(&uploads));
        }
        held.into_iter().for_each(|lent| end(&uploads, lent));
        assert!(taken(&uploads) <= 5 * CHUNK, "{}", taken(&uploads));
    }

    #[test]
    fn shelves_are_bounded_in_number() {
        let uploads = Uploads::new(1 << 30, 1 << 40);
        for at in 0..2 * MAX_SHELVES {
            session(&uploads, &format!("container:{at}"), &[1]);
        }
        assert_eq!(uploads.lock().shelves(), MAX_SHELVES);
        assert_eq!(
            session(&uploads, &format!("container:{}", 2 * MAX_SHELVES - 1), &[]),
            1,
            "the last stays"
        );
    }

    #[test]
    fn what_a_nameless_guest_sends_ends_with_its_session() {
        let uploads = Uploads::new(10 * CHUNK, 100 * CHUNK);
        for _ in 0..2 {
            let mut lent = uploads.lend(None).unwrap();
            assert!(lent.shelf.chunks().is_empty() && lent.bytes > 0);
            lent.additions.add(&[2; CHUNK as usize]).unwrap();
            end(&uploads, lent);
        }
        assert!(uploads.lock().tenants.is_empty());
    }

    #[test]
    fn sessions_that_end_together_lose_nothing() {
        let uploads = Arc::new(Uploads::new(100 * CHUNK, 1000 * CHUNK));
        let barrier = Arc::new(std::sync::Barrier::new(8));
        let threads: Vec<_> = (0..8u8)
            .map(|at| {
                let (uploads, barrier) = (uploads.clone(), barrier.clone());
                std::thread::spawn(move || {
                    let mut lent = uploads.lend(key("a")).unwrap();
                    barrier.wait();
                    let additions = Additions::create(2 * CHUNK).unwrap();
                    lent.additions = additions;
                    for fill in [2 * at, 2 * at + 1] {
                        lent.additions.add(&[fill; CHUNK as usize]).unwrap();
                    }
                    end(&uploads, lent);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(session(&uploads, "a", &[]), 16);
    }

    #[test]
    fn a_worker_that_writes_nonsense_loses_only_its_own() {
        let uploads = Uploads::new(10 * CHUNK, 100 * CHUNK);
        session(&uploads, "a", &[1]);
        let lent = uploads.lend(key("a")).unwrap();
        rustix::io::pwrite(&lent.additions, &7u32.to_le_bytes(), 0).unwrap();
        end(&uploads, lent);
        assert_eq!(session(&uploads, "a", &[]), 1);
    }
}
