//! A table, read key by key, so that each mistake is found and has a place.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    findings::{At, Findings, Place},
    keys::{known, remedy},
    lists, values,
};

/// A table whose keys are taken one after another. Keys that are left at the end do not exist.
#[derive(Debug)]
pub(super) struct Table<'t> {
    name: &'static str,
    head: Option<usize>,
    entries: Vec<(&'t str, usize, &'t Spanned<DeValue<'t>>)>,
}

/// A value, or what is wrong with it.
pub(super) type Read<T> = Result<T, String>;

impl<'t> Table<'t> {
    pub(super) fn new(name: &'static str, head: Option<usize>, table: &'t DeTable<'t>) -> Self {
        let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let text: &'t std::borrow::Cow<'t, str> = key.get_ref();
            (&**text, key.span().start, value)
        };
        Self { name, head, entries: table.iter().map(entry).collect() }
    }

    /// Where the table stands.
    pub(super) const fn place(&self) -> Place {
        Place::of(self.name, self.head)
    }

    /// Returns `true` if a key is there and was not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, ..)| *name == key)
    }

    /// Returns `true` if the value of a key is a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _, value)| *name == key && value.get_ref().is_array())
    }

    /// Returns `true` if the value of a key is text.
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _, value)| *name == key && value.get_ref().is_str())
    }

    /// Returns `true` if the value of a key is a table.
    fn is_table(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _, value)| *name == key && value.get_ref().is_table())
    }

    fn pop(&mut self, key: &'static str) -> Option<(Place, &'t Spanned<DeValue<'t>>)> {
        let at = self.entries.iter().position(|(name, ..)| *name == key)?;
        let (_, offset, value) = self.entries.swap_remove(at);
        Some((Place::of(key, Some(offset)), value))
    }

    /// The value of a key. `None`: missing or wrong.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<At<T>> {
        let (place, value) = self.pop(key)?;
        match read(value.get_ref()) {
            Ok(value) => Some(At { value, place }),
            Err(problem) => {
                findings.error(place, format_args!("{problem}; {}", remedy(self.name, key)));
                None
            }
        }
    }

    /// The value of a key that has to be there.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            self.missing(key, findings);
        }
        self.take(key, findings, read)
    }

    fn missing(&self, key: &'static str, findings: &mut Findings) {
        let place = Place::of(key, self.head);
        findings.error(place, format_args!("it is missing; {}", remedy(self.name, key)));
    }

    /// The values of a list, each with its place. `None`: missing, or one of them is wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<At<Vec<At<T>>>> {
        let (place, value) = self.pop(key)?;
        let remedy = remedy(self.name, key);
        let DeValue::Array(items) = value.get_ref() else {
            findings.error(place, format_args!("it is {} and no list; {remedy}", kind(value.get_ref())));
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items.iter() {
            let place = Place::of(key, Some(item.span().start));
            match read(item.get_ref()) {
                Ok(value) => values.push(At { value, place }),
                Err(problem) => findings.error(place, format_args!("{problem}; {remedy}")),
            }
        }
        (values.len() == items.len()).then_some(At { value: values, place })
    }

    /// As [`list`](Self::list), for a list that must not be empty, and must be there if it is
    /// `needed`.
    pub(super) fn full_list<T>(
        &mut self,
        key: &'static str,
        needed: bool,
        findings: &mut Findings,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<At<Vec<At<T>>>> {
        if needed && !self.has(key) {
            self.missing(key, findings);
        }
        let list = self.list(key, findings, read)?;
        self.not_empty(key, list, findings)
    }

    /// The values of a list, by group: a list within it is a group, and so is a value by itself.
    /// `None`: missing, or one of them is wrong.
    pub(super) fn groups<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Option<At<Vec<Vec<At<T>>>>> {
        let (place, value) = self.pop(key)?;
        let remedy = remedy(self.name, key);
        let items = value.get_ref().as_array().filter(|items| !items.is_empty());
        let Some(items) = items else {
            findings.error(place, format_args!("the list is empty; {remedy}"));
            return None;
        };
        let mut is_good = true;
        let mut groups = Vec::with_capacity(items.len());
        for item in items.iter() {
            let place = Place::of(key, Some(item.span().start));
            let mut group = Vec::new();
            let mut add = |value: &Spanned<DeValue<'_>>| {
                let place = Place::of(key, Some(value.span().start));
                match read(value.get_ref()) {
                    Ok(value) => group.push(At { value, place }),
                    Err(problem) => {
                        findings.error(place, format_args!("{problem}; {remedy}"));
                        is_good = false;
                    }
                }
            };
            match item.get_ref() {
                DeValue::Array(hosts) => hosts.iter().for_each(add),
                _ => add(item),
            }
            if group.is_empty() && is_good {
                findings.error(place, format_args!("the group is empty; {remedy}"));
                is_good = false;
            }
            groups.push(group);
        }
        is_good.then_some(At { value: groups, place })
    }

    fn not_empty<T>(&self, key: &str, list: At<Vec<T>>, findings: &mut Findings) -> Option<At<Vec<T>>> {
        if list.value.is_empty() {
            findings.error(list.place, format_args!("the list is empty; {}", remedy(self.name, key)));
            return None;
        }
        Some(list)
    }

    /// As [`list`](Self::list), for values that may also be in a file of the folder, one a line:
    /// `{ file = "NAME" }`.
    pub(super) fn list_or_file<T>(
        &mut self,
        key: &'static str,
        folder: &Path,
        findings: &mut Findings,
        read: impl Fn(&str) -> Read<T>,
    ) -> Option<At<Vec<At<T>>>> {
        if !self.is_table(key) {
            return self.list(key, findings, |value| read(values::text(value)?));
        }
        let mut table = self.table(key, findings)?;
        let place = table.place();
        let file = table.need("file", findings, values::path);
        table.end(findings);
        let value = lists::read(&file?.value, place, folder, findings, read)?;
        Some(At { value, place })
    }

    /// As [`list_or_file`](Self::list_or_file), for values that must be there.
    pub(super) fn full_list_or_file<T>(
        &mut self,
        key: &'static str,
        folder: &Path,
        findings: &mut Findings,
        read: impl Fn(&str) -> Read<T>,
    ) -> Option<At<Vec<At<T>>>> {
        if !self.has(key) {
            self.missing(key, findings);
        }
        let list = self.list_or_file(key, folder, findings, read)?;
        self.not_empty(key, list, findings)
    }

    /// A table within this one.
    pub(super) fn table(&mut self, key: &'static str, findings: &mut Findings) -> Option<Self> {
        let (place, value) = self.pop(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(key, place.offset, table)),
            other => {
                findings.error(place, format_args!("it is {} and no table; {}", kind(other), remedy(self.name, key)));
                None
            }
        }
    }

    /// Tables of which there may be any number.
    pub(super) fn tables(&mut self, key: &'static str, findings: &mut Findings) -> Vec<Self> {
        let Some((place, value)) = self.pop(key) else { return Vec::new() };
        let wrong =
            |found: &DeValue<'_>| format!("it is {}, not any number of tables; {}", kind(found), remedy("", key));
        let DeValue::Array(items) = value.get_ref() else {
            findings.error(place, wrong(value.get_ref()));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push(Self::new(key, Some(item.span().start), table)),
                other => findings.error(Place::of(key, Some(item.span().start)), wrong(other)),
            }
        }
        tables
    }

    /// One table, or any number of them.
    pub(super) fn table_or_tables(&mut self, key: &'static str, findings: &mut Findings) -> Vec<Self> {
        match self.is_list(key) {
            true => self.tables(key, findings),
            false => self.table(key, findings).into_iter().collect(),
        }
    }

    /// Ends the reading: keys that are left are mistakes.
    pub(super) fn end(self, findings: &mut Findings) {
        for (key, offset, _) in self.entries {
            findings.unknown(key, offset, format_args!("there is no such key; write one of {}", known(self.name)));
        }
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
