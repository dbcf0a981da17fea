//! What criterion has found, as a table: ours, and how many times as long the others take.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::shell::{Failure, Outcome};

/// The function of a group that the others are compared with.
const OURS: &str = "posthaste";

struct Measurement {
    group: String,
    function: String,
    finished: SystemTime,
    /// Nanoseconds an iteration.
    median: f64,
    least: f64,
    most: f64,
    /// Items and octets of an iteration; no items when octets are all that counts.
    items: Option<f64>,
    octets: Option<f64>,
}

/// Prints what has been measured since `since`; nothing when nothing was.
pub(crate) fn print(folder: &Path, since: SystemTime) -> Outcome {
    let mut measurements = Vec::new();
    for file in results(folder).filter(|file| finished(file).is_some_and(|finished| finished >= since)) {
        measurements.push(Measurement::read(&file).ok_or_else(|| {
            let what = format!("{} and the files beside it are not as criterion writes them.", file.display());
            Failure::new(what, "Remove the folder and measure again; a new criterion needs a new bench/table.rs.")
        })?);
    }
    measurements.sort_by_key(|measurement| measurement.finished);
    let compared: BTreeSet<String> = measurements
        .iter()
        .filter(|measurement| measurement.function == OURS && measurement.items.is_some())
        .map(|measurement| measurement.group.clone())
        .collect();
    let (items, others): (Vec<_>, Vec<_>) =
        measurements.into_iter().partition(|measurement| compared.contains(&measurement.group));
    if !items.is_empty() {
        print_items(&items);
    }
    if !others.is_empty() {
        print_others(&others);
    }
    Ok(())
}

/// One row a group, one column an implementation.
fn print_items(measurements: &[Measurement]) {
    let groups = in_order(measurements, |measurement| &measurement.group);
    let mut columns = in_order(measurements, |measurement| &measurement.function);
    columns.retain(|function| *function != OURS);
    println!("\nNanoseconds an item: median, (least - most), and how many times as long as ours.\n");
    print!("{:24}{:>26}{:>9}", "", OURS, "MB/s");
    columns.iter().for_each(|function| print!("{function:>20}"));
    println!();
    for group in groups {
        let find = |function: &str| measurements.iter().find(|m| m.group == group && m.function == function);
        let Some(ours) = find(OURS) else { continue };
        let items = ours.items.unwrap_or(1.0);
        let range = format!("({:.1} - {:.1})", ours.least / items, ours.most / items);
        print!("{group:24}{:>8.1} {range:>17}{:>9}", ours.median / items, ours.rate());
        for function in &columns {
            match find(function) {
                Some(other) => {
                    let ratio = format!("\u{d7}{:.2}", other.median / ours.median);
                    print!("{:>12.1}{ratio:>8}", other.median / items);
                }
                None => print!("{:>20}", "-"),
            }
        }
        println!();
    }
}

/// One row a measurement: their columns would have nothing in common.
fn print_others(measurements: &[Measurement]) {
    println!("\nMicroseconds an iteration: median, (least - most); MB/s; how many times as long as ours.\n");
    for measurement in measurements {
        let Measurement { group, function, median, least, most, .. } = measurement;
        let range = format!("({:.2} - {:.2})", least / 1e3, most / 1e3);
        let ours = measurements.iter().find(|m| m.group == *group && m.function == OURS);
        let ratio = ours.filter(|_| function != OURS).map(|ours| format!("\u{d7}{:.2}", median / ours.median));
        let name = format!("{group}: {function}");
        let (rate, ratio) = (measurement.rate(), ratio.unwrap_or_default());
        println!("{name:62}{:>11.2} {range:>22}{rate:>9}{ratio:>8}", median / 1e3);
    }
}

fn in_order(measurements: &[Measurement], name: fn(&Measurement) -> &String) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for measurement in measurements {
        let name = name(measurement).as_str();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Measurement {
    /// Reads `estimates.json` and the two files beside it.
    fn read(estimates: &Path) -> Option<Self> {
        let json = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
        let (about, sample) =
            (json(&estimates.with_file_name("benchmark.json"))?, json(&estimates.with_file_name("sample.json"))?);
        let times = sample["times"].as_array()?.iter().zip(sample["iters"].as_array()?);
        let times: Option<Vec<f64>> = times.map(|(time, count)| Some(time.as_f64()? / count.as_f64()?)).collect();
        let times = times?;
        let throughput = &about["throughput"];
        let both = &throughput["ElementsAndBytes"];
        Some(Self {
            group: about["group_id"].as_str()?.into(),
            function: about["function_id"].as_str()?.into(),
            finished: finished(estimates)?,
            median: json(estimates)?["median"]["point_estimate"].as_f64()?,
            least: times.iter().copied().reduce(f64::min)?,
            most: times.iter().copied().reduce(f64::max)?,
            items: both["elements"].as_f64().or(throughput["Elements"].as_f64()),
            octets: both["bytes"].as_f64().or(throughput["BytesDecimal"].as_f64()).or(throughput["Bytes"].as_f64()),
        })
    }

    /// Megabytes a second.
    fn rate(&self) -> String {
        self.octets.map(|octets| format!("{:.0}", octets * 1e3 / self.median)).unwrap_or_default()
    }
}

/// `GROUP/FUNCTION/new/estimates.json`, of this and of earlier runs.
fn results(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let children = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    children(folder)
        .flat_map(move |group| children(&group))
        .map(|function| function.join("new/estimates.json"))
        .filter(|file| file.is_file())
}

fn finished(file: &Path) -> Option<SystemTime> {
    file.metadata().ok()?.modified().ok()
}
