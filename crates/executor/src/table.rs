//! The objects of one kind in one session, found by the names that the guest chose.

use std::marker::PhantomData;

use pontoon_wire::limits::MAX_OBJECTS_PER_KIND;
use pontoon_wire::{Id, Kind};

use crate::End;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    object: Option<T>,
}

/// Objects by index and generation. Indices are dense: a new one is at most one past the last, so a
/// forged index reserves no memory.
#[derive(Debug)]
pub struct Table<K, T> {
    slots: Vec<Slot<T>>,
    kind: PhantomData<K>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), kind: PhantomData }
    }
}

impl<K: Kind, T> Table<K, T> {
    fn violation(id: Id<K>, what: &str) -> End {
        End::Violation(format!("{} {id:?} {what}", K::NAME))
    }

    /// Gives `object` the name `id`.
    ///
    /// # Errors
    /// [`End::Violation`] where the name is taken, stale or not dense.
    pub fn insert(&mut self, id: Id<K>, object: T) -> Result<(), End> {
        self.fill(id, Some(object))
    }

    /// Uses the name `id` up for an object that could not be created.
    ///
    /// # Errors
    /// As [`Table::insert`].
    pub fn skip(&mut self, id: Id<K>) -> Result<(), End> {
        self.fill(id, None)
    }

    fn fill(&mut self, id: Id<K>, object: Option<T>) -> Result<(), End> {
        let index = id.index() as usize;
        if index == self.slots.len() && id.generation() == 1 && index < MAX_OBJECTS_PER_KIND {
            self.slots.push(Slot { generation: 1, object });
            return Ok(());
        }
        match self.slots.get_mut(index) {
            Some(slot)
                if slot.object.is_none() && slot.generation.checked_add(1) == Some(id.generation()) =>
            {
                *slot = Slot { generation: id.generation(), object };
                Ok(())
            }
            Some(_) => Err(Self::violation(id, "is taken or stale")),
            None => Err(Self::violation(id, "is not the next name")),
        }
    }

    /// The object with this name.
    ///
    /// # Errors
    /// [`End::Violation`] where there is none.
    #[inline]
    pub fn get(&self, id: Id<K>) -> Result<&T, End> {
        match self.slots.get(id.index() as usize) {
            Some(Slot { generation, object: Some(object) }) if *generation == id.generation() => Ok(object),
            _ => Err(Self::violation(id, "does not exist")),
        }
    }

    /// The object with this name, to change.
    ///
    /// # Errors
    /// [`End::Violation`] where there is none.
    #[inline]
    pub fn get_mut(&mut self, id: Id<K>) -> Result<&mut T, End> {
        match self.slots.get_mut(id.index() as usize) {
            Some(Slot { generation, object: Some(object) }) if *generation == id.generation() => Ok(object),
            _ => Err(Self::violation(id, "does not exist")),
        }
    }

    /// Takes the object with this name out; the name is stale from now on.
    ///
    /// # Errors
    /// [`End::Violation`] where there is none.
    pub fn remove(&mut self, id: Id<K>) -> Result<T, End> {
        let slot = self.slots.get_mut(id.index() as usize).filter(|slot| slot.generation == id.generation());
        match slot.and_then(|slot| slot.object.take()) {
            Some(object) => Ok(object),
            None => Err(Self::violation(id, "does not exist")),
        }
    }

    /// All objects and their names.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id<K>, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let id = Id::new(index as u32, slot.generation);
            slot.object.as_mut().map(|object| (id, object))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pontoon_wire::handle::Buffer;

    #[test]
    fn names_are_dense_and_go_stale() {
        let mut table = Table::<Buffer, &str>::default();
        assert!(table.insert(Id::new(1, 1), "gap").is_err());
        assert!(table.insert(Id::new(0, 2), "wrong generation").is_err());
        table.insert(Id::new(0, 1), "first").unwrap();
        assert!(table.insert(Id::new(0, 1), "taken").is_err());
        assert_eq!(table.remove(Id::new(0, 1)), Ok("first"));
        assert!(table.remove(Id::new(0, 1)).is_err());
        assert!(table.get(Id::new(0, 1)).is_err());
        assert!(table.insert(Id::new(0, 1), "stale").is_err());
        table.insert(Id::new(0, 2), "second").unwrap();
        assert_eq!(table.get(Id::new(0, 2)), Ok(&"second"));
        assert!(table.get(Id::new(0, 1)).unwrap_err().to_string().contains("buffer 0.1"));
    }
}
