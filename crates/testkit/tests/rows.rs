//! The tables of the wire crate, replayed through the bodies of the fuzz targets.

#[path = "../../wire/tests/support/rows.rs"]
mod rows;

use posthaste_testkit::fuzz;

#[test]
fn every_row_holds() {
    for (table, body) in [
        (include_str!("../../wire/tests/commands.txt"), fuzz::command as fn(&[u8])),
        (include_str!("../../wire/tests/addresses.txt"), fuzz::address),
        (include_str!("../../wire/tests/xtext.txt"), fuzz::address),
        (include_str!("../../wire/tests/replies.txt"), fuzz::reply),
    ] {
        for row in rows::rows(table) {
            // The row that fails stands above the panic.
            println!("{}", row.text);
            // In a table of texts the input stands behind the name of what it is.
            let text = row.input.iter().position(|octet| *octet == b' ').map_or(0, |space| space + 1);
            body(&row.input);
            body(&row.input[text..]);
        }
    }
}
