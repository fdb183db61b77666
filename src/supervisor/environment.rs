//! The environment that processes inherit; `/env` changes it for those that start later.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Shared and changeable; processes get the snapshot of the moment they start.
#[derive(Debug, Clone)]
pub struct Environment {
    initial: Arc<Variables>,
    current: Arc<Mutex<Current>>,
}

type Variables = BTreeMap<OsString, OsString>;

#[derive(Debug)]
struct Current {
    variables: Arc<Variables>,
    /// What counts where `variables` has nothing.
    offered: Variables,
    /// Both.
    merged: Arc<Variables>,
}

impl Current {
    fn new(variables: Arc<Variables>, offered: Variables) -> Self {
        let mut merged = Arc::clone(&variables);
        for (name, value) in &offered {
            if !merged.contains_key(name) {
                Arc::make_mut(&mut merged).insert(name.clone(), value.clone());
            }
        }
        Self { variables, offered, merged }
    }
}

impl Environment {
    /// Begins with the daemon's own variables.
    pub fn new(variables: BTreeMap<OsString, OsString>) -> Self {
        let initial = Arc::new(variables);
        let current = Current::new(Arc::clone(&initial), Variables::new());
        Self { current: Arc::new(Mutex::new(current)), initial }
    }

    /// The variables as they are now.
    pub fn snapshot(&self) -> Arc<BTreeMap<OsString, OsString>> {
        Arc::clone(&self.current().merged)
    }

    /// One variable as it is now.
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.snapshot().get(OsStr::new(name)).cloned()
    }

    /// Goes back to the variables that it began with.
    pub fn reset(&self) {
        let mut current = self.current();
        *current = Current::new(Arc::clone(&self.initial), std::mem::take(&mut current.offered));
    }

    /// Replaces what processes get as `name` when they have no such variable otherwise; without a value, nothing.
    pub fn offer(&self, name: &str, value: Option<OsString>) {
        let mut current = self.current();
        let mut offered = std::mem::take(&mut current.offered);
        match value {
            Some(value) => drop(offered.insert(name.into(), value)),
            None => drop(offered.remove(OsStr::new(name))),
        }
        *current = Current::new(Arc::clone(&current.variables), offered);
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the names in `unset`, then whatever has a value that starts with `prefix` (unless that is empty, or
    /// `set` has the name), then applies `set`. All of it or nothing.
    ///
    /// # Errors
    /// When a name or value cannot be a variable's.
    pub fn update(&self, unset: &[String], prefix: &str, set: &BTreeMap<String, String>) -> Result<()> {
        unset.iter().chain(set.keys()).try_for_each(|name| check_name(name))?;
        set.iter().try_for_each(|(name, value)| check_value(name, value))?;
        let mut current = self.current();
        let mut changed = Variables::clone(&current.variables);
        changed.retain(|name, value| {
            let named = unset.iter().any(|unset| name == OsStr::new(unset));
            let prefixed = !prefix.is_empty() && value.as_bytes().starts_with(prefix.as_bytes());
            !named && (!prefixed || name.to_str().is_some_and(|name| set.contains_key(name)))
        });
        changed.extend(set.iter().map(|(name, value)| (name.into(), value.into())));
        *current = Current::new(Arc::new(changed), std::mem::take(&mut current.offered));
        Ok(())
    }
}

/// POSIX: a shell name is letters, digits and underscores, and does not begin with a digit.
///
/// # Errors
/// When `name` is not.
pub fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid environment variable name: '{name}'")))
}

/// A value cannot have a NUL byte, which would end it.
///
/// # Errors
/// When `value` has one.
pub fn check_value(name: &str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::invalid(format!("the value of environment variable {name} has a NUL byte")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let variables = [("A", "1"), ("B", "ref:x"), ("C", "ref:y")];
        Environment::new(variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn removal_comes_first_and_spares_what_is_set() {
        let environment = environment();
        let set = BTreeMap::from([("B".to_owned(), "ref:new".to_owned()), ("D".to_owned(), "4".to_owned())]);
        environment.update(&["A".to_owned()], "ref:", &set).unwrap();
        let names: Vec<_> = environment.snapshot().keys().cloned().collect();
        assert_eq!(names, ["B", "D"]);
        assert_eq!(environment.get("B").unwrap(), "ref:new");
    }

    #[test]
    fn what_is_offered_counts_where_nothing_else_does() {
        let environment = environment();
        environment.offer("A", Some("offered".into()));
        environment.offer("D", Some("offered".into()));
        assert_eq!(environment.get("A").unwrap(), "1");
        assert_eq!(environment.get("D").unwrap(), "offered");
        environment.update(&["A".to_owned()], "", &BTreeMap::new()).unwrap();
        assert_eq!(environment.get("A").unwrap(), "offered");
        environment.reset();
        environment.offer("D", None);
        assert_eq!(environment.get("A").unwrap(), "1");
        assert_eq!(environment.get("D"), None);
    }

    #[test]
    fn an_empty_prefix_does_nothing_and_a_bad_name_changes_nothing() {
        let environment = environment();
        environment.update(&[], "", &BTreeMap::new()).unwrap();
        assert_eq!(environment.snapshot().len(), 3);
        let bad = BTreeMap::from([("A".to_owned(), "2".to_owned()), ("X-Y".to_owned(), "3".to_owned())]);
        assert!(environment.update(&[], "", &bad).is_err());
        assert_eq!(environment.get("A").unwrap(), "1");
    }
}
