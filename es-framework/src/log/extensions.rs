//! What the layers above keep with a store, one value of each type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Values by their types. All handles that were cloned from one share them.
#[derive(Default)]
pub(super) struct Extensions(Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Extensions {
    /// The value of this type, created if there is none.
    pub(super) fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::<T>::default());
        Arc::clone(value).downcast().unwrap_or_default()
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_created_once_for_each_type() {
        let all = Extensions::default();
        assert!(Arc::ptr_eq(&all.get::<Mutex<u8>>(), &all.get::<Mutex<u8>>()));
        *all.get::<Mutex<u8>>().lock().unwrap() = 7;
        assert_eq!(*all.get::<Mutex<u16>>().lock().unwrap(), 0);
        assert_eq!(*all.get::<Mutex<u8>>().lock().unwrap(), 7);
    }
}
