//! Places for callers that have not yet said who they are. They cost a thread each, so there are few; and who floods
//! the door takes the places of its own neighbourhood and nobody else's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Places in all.
const MAX_ALL: usize = 1024;
/// Places of one neighbourhood.
const MAX_EACH: usize = 64;

/// Where a caller comes from, as far as can be told before it has said a word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum From {
    /// A container of this host.
    Container(String),
    /// A user of this host.
    User(u32),
    /// A virtual machine.
    Vm(u32),
    /// Another machine: its address, or the network of an IPv6 address, of which a machine has many.
    Machine(IpAddr),
}

impl From {
    /// Another machine.
    pub fn machine(address: IpAddr) -> Self {
        Self::Machine(match address {
            IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
                Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()
            }
            other => other,
        })
    }
}

/// The places.
#[derive(Debug, Default)]
pub struct Greetings(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<From, usize>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    from: From,
}

impl Greetings {
    /// A place for a caller; none where its neighbourhood has all of its own.
    pub fn enter(&self, from: From) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.each.get(&from).copied().unwrap_or(0);
        if taken.all >= MAX_ALL || own >= MAX_EACH {
            return None;
        }
        taken.all += 1;
        taken.each.insert(from.clone(), own + 1);
        Some(Place { taken: self.0.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.each.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                taken.each.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_takes_its_own_neighbourhoods_places() {
        let greetings = Greetings::default();
        let mut flood: Vec<Place> = (0..MAX_EACH).map(|_| greetings.enter(From::User(7)).unwrap()).collect();
        assert!(greetings.enter(From::User(7)).is_none());
        assert!(greetings.enter(From::User(8)).is_some() && greetings.enter(From::Vm(7)).is_some());
        let machine = |address: &str| From::machine(address.parse().unwrap());
        assert_eq!(machine("2001:db8::1"), machine("2001:db8::2"));
        assert_ne!(machine("2001:db8::1"), machine("2001:db8:0:1::1"));
        flood.pop();
        assert!(greetings.enter(From::User(7)).is_some(), "a place that is given back can be taken again");
        drop(flood);
        assert!(greetings.0.lock().unwrap().each.is_empty());
    }
}
