//! The table.

use crate::load::Round;

/// The middle of some figures, and their ends.
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |at: usize| figures.get(at).copied().unwrap_or(f64::NAN);
        Self { median: at(figures.len() / 2), least: at(0), most: at(figures.len().saturating_sub(1)) }
    }
}

pub(crate) fn print(name: &str, probes: &[f64], candidates: &[(&'static str, Vec<Round>)]) {
    let Spread { median, least, most } = Spread::of(probes.iter().copied());
    println!("\n{name}; fdatasync of a plain append of 4 KiB: {median:.2} ms ({least:.2} - {most:.2})");
    println!("{:34}{:>27}{:>9}{:>9}{:>10}{:>16}", "", "messages/s", "p50 ms", "p99 ms", "syncs/msg", "CPU us/msg");
    for (candidate, rounds) in candidates {
        let rate = Spread::of(rounds.iter().map(|round| round.rate));
        let rates = format!("{:.0} ({:.0} - {:.0})", rate.median, rate.least, rate.most);
        let (p50, p99) = (Spread::of(rounds.iter().map(|r| r.p50)), Spread::of(rounds.iter().map(|r| r.p99)));
        let messages: f64 = rounds.iter().map(|round| round.messages).sum();
        let syncs = rounds.iter().map(|round| round.syncs).sum::<f64>() / messages;
        let worker = rounds.iter().map(|round| round.cpu.worker).sum::<f64>() * 1e6 / messages;
        let process = rounds.iter().map(|round| round.cpu.process).sum::<f64>() * 1e6 / messages;
        let cpu = format!("{worker:.1} of {process:.1}");
        println!("{candidate:34}{rates:>27}{:>9.2}{:>9.2}{syncs:>10.3}{cpu:>16}", p50.median, p99.median);
    }
    let Some(((ours, first), others)) = candidates.split_first() else { return };
    for (candidate, rounds) in others {
        let pairs = || first.iter().zip(rounds);
        let rate = Spread::of(pairs().map(|(ours, theirs)| ours.rate / theirs.rate));
        let p99 = Spread::of(pairs().map(|(ours, theirs)| ours.p99 / theirs.p99));
        println!(
            "{ours} / {candidate}: rate \u{d7}{:.2} ({:.2} - {:.2}), p99 \u{d7}{:.2} ({:.2} - {:.2})",
            rate.median, rate.least, rate.most, p99.median, p99.least, p99.most
        );
    }
}
