//! Which keys stand in a configuration, to tell what a new one changes. No value is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use toml::{Table, Value};

/// The keys, each with the hash of its value.
#[derive(Debug)]
pub(crate) struct Written(BTreeMap<String, u64>);

impl Written {
    /// Takes the text of a file. What is no TOML has no key.
    pub(super) fn of(text: &str) -> Self {
        let mut keys = BTreeMap::new();
        for (key, value) in text.parse::<Table>().unwrap_or_default() {
            add(&mut keys, key, &value);
        }
        Self(keys)
    }

    /// The keys that stand in only one of both, or differ.
    pub(crate) fn changed(&self, other: &Self) -> Vec<String> {
        let keys: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }
}

fn add(keys: &mut BTreeMap<String, u64>, key: String, value: &Value) {
    match value {
        Value::Table(table) => table.iter().for_each(|(name, value)| add(keys, format!("{key}.{name}"), value)),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            items.iter().zip(1..).for_each(|(item, number)| add(keys, format!("{key} {number}"), item));
        }
        value => {
            let mut hasher = DefaultHasher::new();
            format!("{value:?}").hash(&mut hasher);
            keys.insert(key, hasher.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Written;

    #[test]
    fn keys_that_changed_are_named_without_their_values() {
        let now = Written::of("a = 1\nb = [1, 2]\n[c]\nd = 'x'\ne = 'y'\n[[f]]\ng = 1\n[[f]]\ng = 2\n");
        let then = Written::of("b = [1]\n[c]\nd = 'x'\ne = 'secret'\n[[f]]\ng = 1\n[[f]]\ng = 3\n[[f]]\ng = 2\n");
        assert_eq!(now.changed(&then), ["a", "b", "c.e", "f 2.g", "f 3.g"]);
        assert!(now.changed(&now).is_empty());
    }
}
