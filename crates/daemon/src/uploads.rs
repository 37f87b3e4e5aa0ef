//! What the host keeps of uploads from session to session: one shelf of chunks for each tenant, all of them
//! within bounds.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pontoon_uploads::{Additions, Digest, Error, Shelf};

/// How long a session waits for what its tenant's last one sent: programs are run again at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The shelves of all tenants.
#[derive(Debug)]
pub struct Uploads {
    /// Most bytes kept for one tenant, and most that one session adds.
    per_tenant: u64,
    /// Most bytes of all shelves and of what live sessions may still add.
    total: u64,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with each session that ends.
    clock: u64,
    /// Bytes that live sessions may add.
    lent: u64,
    tenants: BTreeMap<String, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Nothing where nothing is kept.
    shelf: Option<Arc<Shelf>>,
    /// When each chunk was last sent or named.
    used: Vec<u64>,
    /// When a session of the tenant last began or ended.
    last: u64,
    /// Sessions that are over and whose uploads are being put on the shelf.
    settling: usize,
}

impl Tenant {
    fn bytes(&self) -> u64 {
        self.shelf.as_ref().map_or(0, |shelf| shelf.bytes())
    }
}

/// What a session has while it lives.
#[derive(Debug)]
pub struct Lent {
    tenant: String,
    /// Whether what it adds is for later sessions too.
    lasts: bool,
    /// The tenant's chunks when it began.
    pub shelf: Arc<Shelf>,
    /// Where it adds.
    pub additions: Additions,
    /// How much it may add, in bytes.
    pub bytes: u64,
}

/// A chunk that may be on the next shelf.
struct Candidate<'a> {
    used: u64,
    source: (Digest, u32, BorrowedFd<'a>, u64),
}

impl Uploads {
    /// Nothing kept yet; bounds in bytes. `per_tenant` 0 keeps nothing, ever.
    pub fn new(per_tenant: u64, total: u64) -> Self {
        Self { per_tenant, total, state: Mutex::default(), settled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new session of `tenant` gets; nothing where the host keeps nothing. What it adds is kept after it only
    /// if the name stands for the same guest later (`lasts`).
    ///
    /// # Errors
    /// What the system said.
    pub fn lend(&self, tenant: &str, lasts: bool) -> Result<Option<Lent>, Error> {
        if self.per_tenant == 0 {
            return Ok(None);
        }
        let mut state = self.lock();
        let deadline = Instant::now() + PATIENCE;
        while state.tenants.get(tenant).is_some_and(|tenant| tenant.settling > 0) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let bytes = state.make_room(tenant, self.per_tenant, self.total);
        state.clock += 1;
        let now = state.clock;
        let shelf = match state.tenants.get_mut(tenant).filter(|_| lasts) {
            Some(tenant) => {
                tenant.last = now;
                tenant.shelf.clone()
            }
            None => None,
        };
        state.lent += bytes;
        drop(state);
        let made = || {
            let shelf = shelf.map_or_else(|| Shelf::build(&[]).map(Arc::new), Ok)?;
            Ok((shelf, Additions::create(bytes)?))
        };
        match made() {
            Ok((shelf, additions)) => {
                Ok(Some(Lent { tenant: tenant.to_owned(), lasts, shelf, additions, bytes }))
            }
            Err(error) => {
                self.lock().lent -= bytes;
                Err(error)
            }
        }
    }

    /// Says that a session is over, before its worker is seen out: the tenant's next session waits for
    /// [`Uploads::take_back`].
    pub fn session_ends(&self, lent: &Lent) {
        if lent.lasts {
            self.lock().tenants.entry(lent.tenant.clone()).or_default().settling += 1;
        }
    }

    /// Puts what a session sent on its tenant's shelf, the latest first and the longest unused left out. The
    /// session's worker must be gone, and [`Uploads::session_ends`] have been called.
    pub fn take_back(&self, lent: Lent) {
        if !lent.lasts {
            self.lock().lent -= lent.bytes;
            return;
        }
        if let Err(error) = self.settle(&lent) {
            log::warn!("what a session of {} has sent is not kept: {error}", lent.tenant);
        }
        let mut state = self.lock();
        state.lent -= lent.bytes;
        if let Some(tenant) = state.tenants.get_mut(&lent.tenant) {
            tenant.settling -= 1;
            if tenant.settling == 0 && tenant.shelf.is_none() {
                state.tenants.remove(&lent.tenant);
            }
        }
        self.settled.notify_all();
    }

    fn settle(&self, lent: &Lent) -> Result<(), Error> {
        let (added, named) = lent.additions.records()?;
        let lent_chunks = || named.iter().filter_map(|number| lent.shelf.chunks().get(*number as usize));
        if added.is_empty() {
            let names: HashSet<Digest> = lent_chunks().map(|chunk| chunk.digest).collect();
            self.lock().touch(&lent.tenant, &names);
            return Ok(());
        }
        loop {
            let (current, used, now) = self.lock().begin(&lent.tenant);
            let old = current.iter().flat_map(|shelf| shelf.chunks().iter().map(move |chunk| (shelf, chunk)));
            let mut candidates: Vec<Candidate<'_>> = Vec::new();
            candidates.extend(added.iter().map(|chunk| Candidate {
                used: now,
                source: (chunk.digest, chunk.len, lent.additions.as_fd(), chunk.at),
            }));
            candidates.extend(lent_chunks().map(|chunk| Candidate {
                used: now,
                source: (chunk.digest, chunk.len, lent.shelf.as_fd(), chunk.at),
            }));
            candidates.extend(old.zip(used).map(|((shelf, chunk), used)| Candidate {
                used,
                source: (chunk.digest, chunk.len, shelf.as_fd(), chunk.at),
            }));
            let chosen = choose(candidates, self.per_tenant);
            let sources: Vec<_> = chosen.iter().map(|candidate| candidate.source).collect();
            let shelf = Arc::new(Shelf::build(&sources)?);
            let used = chosen.iter().map(|candidate| candidate.used).collect();
            if self.lock().replace(&lent.tenant, current.as_ref(), shelf, used, now) {
                return Ok(());
            }
        }
    }
}

/// Each chunk once, the last used first, within `bytes`.
fn choose(mut candidates: Vec<Candidate<'_>>, bytes: u64) -> Vec<Candidate<'_>> {
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.used));
    let (mut names, mut left) = (HashSet::new(), bytes);
    candidates.retain(|Candidate { source: (digest, len, ..), .. }| {
        let fits = u64::from(*len) <= left && names.insert(*digest);
        left -= if fits { u64::from(*len) } else { 0 };
        fits
    });
    candidates.truncate(pontoon_wire::limits::MAX_KEPT_CHUNKS);
    candidates
}

impl State {
    /// Bytes that a new session of `tenant` may add. Where they are short, shelves of other tenants go, the longest
    /// unused first.
    fn make_room(&mut self, tenant: &str, wanted: u64, total: u64) -> u64 {
        loop {
            let kept: u64 = self.tenants.values().map(Tenant::bytes).sum();
            let free = total.saturating_sub(kept + self.lent);
            let others = self.tenants.iter().filter(|(name, other)| *name != tenant && other.bytes() > 0);
            match others.min_by_key(|(_, other)| other.last).map(|(name, _)| name.clone()) {
                Some(oldest) if free < wanted => {
                    if let Some(oldest) = self.tenants.get_mut(&oldest) {
                        oldest.shelf = None;
                        oldest.used.clear();
                    }
                    self.tenants.retain(|_, tenant| tenant.shelf.is_some() || tenant.settling > 0);
                }
                _ => return free.min(wanted),
            }
        }
    }

    fn touch(&mut self, tenant: &str, names: &HashSet<Digest>) {
        self.clock += 1;
        let now = self.clock;
        let Some(tenant) = self.tenants.get_mut(tenant) else { return };
        let Some(shelf) = &tenant.shelf else { return };
        for (chunk, used) in shelf.chunks().iter().zip(&mut tenant.used) {
            if names.contains(&chunk.digest) {
                *used = now;
            }
        }
        tenant.last = now;
    }

    /// The shelf that the next one is made from, when its chunks were used, and the time.
    fn begin(&mut self, tenant: &str) -> (Option<Arc<Shelf>>, Vec<u64>, u64) {
        self.clock += 1;
        let tenant = self.tenants.get(tenant);
        let shelf = tenant.and_then(|tenant| tenant.shelf.clone());
        (shelf, tenant.map(|tenant| tenant.used.clone()).unwrap_or_default(), self.clock)
    }

    /// Puts a shelf in the place of the one that it was made from; whether that was still there.
    fn replace(
        &mut self,
        tenant: &str,
        old: Option<&Arc<Shelf>>,
        new: Arc<Shelf>,
        used: Vec<u64>,
        now: u64,
    ) -> bool {
        let tenant = self.tenants.entry(tenant.to_owned()).or_default();
        let same = match (&tenant.shelf, old) {
            (Some(there), Some(old)) => Arc::ptr_eq(there, old),
            (None, None) => true,
            _ => false,
        };
        if same {
            (tenant.shelf, tenant.used, tenant.last) = (Some(new), used, now);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 4096;

    fn session(uploads: &Uploads, tenant: &str, fills: &[u8]) -> usize {
        let mut lent = uploads.lend(tenant, true).unwrap().unwrap();
        let known = lent.shelf.chunks().len();
        for fill in fills {
            lent.additions.add(&vec![*fill; CHUNK as usize]).unwrap();
        }
        uploads.session_ends(&lent);
        uploads.take_back(lent);
        known
    }

    #[test]
    fn a_tenant_finds_what_it_sent_and_nobody_else_does() {
        let uploads = Uploads::new(10 * CHUNK, 100 * CHUNK);
        assert_eq!(session(&uploads, "a", &[1, 2]), 0);
        assert_eq!(session(&uploads, "b", &[]), 0);
        assert_eq!(session(&uploads, "a", &[2, 3]), 2);
        assert_eq!(session(&uploads, "a", &[]), 3);
        assert_eq!(uploads.lock().lent, 0);
        assert!(!uploads.lock().tenants.contains_key("b"));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let uploads = Uploads::new(3 * CHUNK, 100 * CHUNK);
        session(&uploads, "a", &[1, 2, 3]);
        let mut lent = uploads.lend("a", true).unwrap().unwrap();
        let one = pontoon_uploads::digest(&[1; CHUNK as usize]);
        let number = lent.shelf.chunks().iter().position(|chunk| chunk.digest == one).unwrap();
        lent.additions.name(number as u32).unwrap();
        uploads.session_ends(&lent);
        uploads.take_back(lent);
        session(&uploads, "a", &[4, 5]);
        let shelf = uploads.lend("a", true).unwrap().unwrap().shelf;
        let names: HashSet<_> = shelf.chunks().iter().map(|chunk| chunk.digest).collect();
        assert_eq!(names, [1, 4, 5].map(|fill| pontoon_uploads::digest(&[fill; CHUNK as usize])).into());
    }

    #[test]
    fn all_tenants_together_stay_within_the_total() {
        let uploads = Uploads::new(4 * CHUNK, 10 * CHUNK);
        for tenant in ["a", "b", "c", "d"] {
            session(&uploads, tenant, &[1, 2, 3, 4]);
            let kept: u64 = uploads.lock().tenants.values().map(Tenant::bytes).sum();
            assert!(kept <= 10 * CHUNK, "{kept}");
        }
        assert_eq!(session(&uploads, "a", &[]), 0, "the oldest shelf went");
        let lent: Vec<_> = (0..4).map(|at| uploads.lend(&format!("x{at}"), true).unwrap().unwrap()).collect();
        let bytes: Vec<_> = lent.iter().map(|lent| lent.bytes / CHUNK).collect();
        assert_eq!(bytes, [4, 4, 2, 0], "what live sessions may add counts too");
        for lent in lent {
            uploads.session_ends(&lent);
            uploads.take_back(lent);
        }
    }

    #[test]
    fn what_a_nameless_machine_sends_ends_with_its_session() {
        let uploads = Uploads::new(10 * CHUNK, 100 * CHUNK);
        session(&uploads, "vm:5", &[1]);
        let mut lent = uploads.lend("vm:5", false).unwrap().unwrap();
        assert!(lent.shelf.chunks().is_empty());
        lent.additions.add(&[2; CHUNK as usize]).unwrap();
        uploads.session_ends(&lent);
        uploads.take_back(lent);
        assert_eq!(session(&uploads, "vm:5", &[]), 1);
    }

    #[test]
    fn sessions_that_end_together_lose_nothing() {
        let uploads = Arc::new(Uploads::new(100 * CHUNK, 1000 * CHUNK));
        let threads: Vec<_> = (0..8u8)
            .map(|at| {
                let uploads = uploads.clone();
                std::thread::spawn(move || session(&uploads, "a", &[2 * at, 2 * at + 1]))
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
        let lent = uploads.lend("a", true).unwrap().unwrap();
        rustix::io::pwrite(&lent.additions, &7u32.to_le_bytes(), 0).unwrap();
        uploads.session_ends(&lent);
        uploads.take_back(lent);
        assert_eq!(session(&uploads, "a", &[]), 1);
    }
}
