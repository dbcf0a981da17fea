//! The table of all limits.

use posthaste_server::{ServerOptions, session::ServerSettings};

const TABLE: &str = include_str!("../../LIMITS.md");

/// The names of fields in what `{:#?}` prints.
fn fields(debug: &str) -> impl Iterator<Item = &str> {
    debug.lines().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name)
}

#[test]
fn the_table_of_limits_has_a_row_for_each_field_and_no_other() {
    let settings = ServerSettings::new("mx.test".parse().unwrap());
    let all = format!("{:#?}\n{:#?}\n{:#?}", ServerOptions::default(), settings.limits, settings.timeouts);
    // A size of networks has one row.
    let mut fields: Vec<_> = fields(&all).filter(|name| !name.ends_with("_prefix") || name.contains("per")).collect();
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut rows: Vec<_> = rows.map(|(name, _)| name).collect();
    fields.sort_unstable();
    rows.sort_unstable();
    assert_eq!(fields, rows);
}
