//! nf_tables of the kernel in memory.

use super::Kernel;
use crate::model::error::Reason;
use crate::plan::reconcile::ObservedTable;
use crate::plan::ruleset::{Accept, Element, Family, Key, Table, Value};

impl Kernel {
    pub(super) fn table_mut(&mut self, family: Family, name: &str) -> Option<&mut ObservedTable> {
        self.observed.tables.iter_mut().find(|table| (table.family, table.name) == (family, name))
    }

    pub(super) fn create_table(&mut self, table: &Table) -> Result<(), Reason> {
        self.check_owner(table.family, table.name)?;
        if self.table_mut(table.family, table.name).is_some() {
            return Err(Reason::Exists);
        }
        self.put_table(table);
        Ok(())
    }

    pub(super) fn replace_table(&mut self, table: &Table) -> Result<(), Reason> {
        self.remove_table(table.family, table.name)?;
        self.put_table(table);
        Ok(())
    }

    pub(super) fn remove_table(&mut self, family: Family, name: &str) -> Result<(), Reason> {
        self.check_owner(family, name)?;
        self.observed.tables.retain(|table| (table.family, table.name) != (family, name));
        Ok(())
    }

    /// Adds all elements or none. Elements that exist already do no harm.
    pub(super) fn add_elements(&mut self, elements: &[Element]) -> Result<(), Reason> {
        for element in elements {
            self.check_owner(element.family, element.table)?;
            self.set_mut(element).ok_or(Reason::Missing)?;
        }
        for element in elements {
            let keys = self.set_mut(element).ok_or(Reason::Missing)?;
            if !keys.iter().any(|key| is_same(key, &element.key)) {
                keys.push(element.key.clone());
            }
        }
        Ok(())
    }

    /// Removes all elements or none. Absent ones do no harm.
    pub(super) fn remove_elements(&mut self, elements: &[Element]) -> Result<(), Reason> {
        for element in elements {
            self.check_owner(element.family, element.table)?;
        }
        for element in elements {
            if let Some(keys) = self.set_mut(element) {
                keys.retain(|key| !is_same(key, &element.key));
            }
        }
        Ok(())
    }

    pub(super) fn add_accept(&mut self, accept: &Accept) -> Result<(), Reason> {
        if self.observed.accept_chains.get(&accept.family) != Some(&accept.chain) {
            return Err(Reason::Missing);
        }
        self.observed.accepts.push(accept.clone());
        Ok(())
    }

    fn put_table(&mut self, table: &Table) {
        self.observed.tables.push(ObservedTable {
            family: table.family,
            name: table.name,
            owned: self.features.owned_tables.then_some(table.owned),
            fingerprint: Some(table.fingerprint()),
            sets: table
                .sets
                .iter()
                .map(|set| (set.name.to_string(), set.elements.clone()))
                .collect(),
        });
    }

    fn set_mut(&mut self, element: &Element) -> Option<&mut Vec<Key>> {
        let table = self.table_mut(element.family, element.table)?;
        let set = table.sets.iter_mut().find(|(name, _)| **name == *element.set);
        set.map(|(_, keys)| keys)
    }

    fn check_owner(&self, family: Family, name: &str) -> Result<(), Reason> {
        let foreign =
            self.foreign_tables.iter().any(|owned| (owned.0, owned.1.as_str()) == (family, name));
        if foreign { Err(Reason::Denied) } else { Ok(()) }
    }
}

/// Whether two keys are the same to the kernel: the value or rate of an element does not count.
fn is_same(one: &Key, other: &Key) -> bool {
    match (one.as_slice(), other.as_slice()) {
        ([one @ .., Value::Rate(..)], [other @ .., Value::Rate(..)]) => one == other,
        (one, other) => one == other,
    }
}
