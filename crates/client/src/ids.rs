//! Names of objects: chosen here, given back when the last user is gone.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pontoon_wire::frame::Forget;
use pontoon_wire::{Id, Kind};

use crate::session::Session;

/// Kinds of object.
const KINDS: usize = 16;

/// Free and used names of all kinds in one session.
#[derive(Debug, Default)]
pub(crate) struct Names {
    next: [u32; KINDS],
    free: [Vec<u64>; KINDS],
}

impl Names {
    /// A name that nothing has.
    pub fn take<K: Kind>(&mut self) -> Id<K> {
        let kind = K::CODE as usize;
        if let Some(bits) = self.free[kind].pop() {
            let last = Id::<K>::from_bits(bits);
            return Id::new(last.index(), last.generation() + 1);
        }
        self.next[kind] += 1;
        Id::new(self.next[kind] - 1, 1)
    }

    /// The name may be used again, in its next generation (the last one retires it).
    pub fn give_back(&mut self, kind: u8, bits: u64) {
        if (bits >> 32) as u32 != u32::MAX {
            self.free[kind as usize].push(bits);
        }
    }
}

/// An object on the host, for as long as something here uses it.
pub(crate) struct Object<K: Kind> {
    pub session: Arc<Session>,
    pub id: Id<K>,
    /// The host has used the object up: nobody needs to tell it to forget the name.
    used_up: AtomicBool,
    kind: PhantomData<K>,
}

impl<K: Kind> Object<K> {
    pub fn new(session: &Arc<Session>, id: Id<K>) -> Arc<Self> {
        Arc::new(Self { session: session.clone(), id, used_up: AtomicBool::new(false), kind: PhantomData })
    }

    /// Says that a command that uses the object up was sent; whether this was the first.
    pub fn use_up(&self) -> bool {
        !self.used_up.swap(true, Ordering::Relaxed)
    }
}

impl<K: Kind> std::fmt::Debug for Object<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", K::NAME, self.id)
    }
}

impl<K: Kind> Drop for Object<K> {
    fn drop(&mut self) {
        let forget = Forget { kind: K::CODE, id: self.id.to_bits() };
        self.session.forget(forget, !*self.used_up.get_mut());
    }
}
