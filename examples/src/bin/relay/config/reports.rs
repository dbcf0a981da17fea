//! The words of reports to senders, and how many a sender gets.

use std::path::Path;

use posthaste::relay::{ReportKind, ReportWords, TemplateError};

use super::{
    findings::{At, Findings},
    keys::remedy,
    lists,
    table::Table,
    values,
};

#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) words: ReportWords,
    pub(super) per_hour: Option<At<u32>>,
}

/// Octets of a file with words; the library takes 16 KiB. Beyond it the relay does not start.
const LONGEST: u64 = 64 << 10;

type Set = fn(&mut ReportWords, &str) -> Result<(), TemplateError>;

const LINES: [(&str, Set); 7] = [
    ("sender_name", ReportWords::set_sender_name),
    ("said", ReportWords::set_said),
    ("more", ReportWords::set_more),
    ("failed_subject", |words, text| words.set_subject(ReportKind::Failed, text)),
    ("delayed_subject", |words, text| words.set_subject(ReportKind::Delayed, text)),
    ("relayed_subject", |words, text| words.set_subject(ReportKind::Relayed, text)),
    ("delivered_subject", |words, text| words.set_subject(ReportKind::Delivered, text)),
];
const FILES: [(&str, Set); 7] = [
    ("opening", ReportWords::set_opening),
    ("failed", |words, text| words.set_section(ReportKind::Failed, text)),
    ("delayed", |words, text| words.set_section(ReportKind::Delayed, text)),
    ("relayed", |words, text| words.set_section(ReportKind::Relayed, text)),
    ("delivered", |words, text| words.set_section(ReportKind::Delivered, text)),
    ("closing", ReportWords::set_closing),
    ("shortened", ReportWords::set_shortened),
];

impl Reports {
    pub(super) fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Self {
        let per_hour = table.take("per_hour", findings, values::octets);
        let mut words = ReportWords::default();
        for (key, set) in LINES {
            let Some(line) = table.take(key, findings, |value| values::text(value).map(str::to_owned)) else {
                continue;
            };
            if let Err(error) = set(&mut words, &line.value) {
                findings.error(line.place, error);
            }
        }
        for (key, set) in FILES {
            let Some(file) = table.take(key, findings, values::path) else { continue };
            let path = folder.join(&file.value);
            match lists::text(&path, LONGEST) {
                Err(problem) => findings.error(file.place, format_args!("{problem}; {}", remedy("reports", key))),
                Ok(text) => {
                    if let Err(error) = set(&mut words, &text) {
                        findings.error(file.place, format_args!("{}: {error}", path.display()));
                    }
                }
            }
        }
        table.end(findings);
        Self { words, per_hour }
    }
}
