//! What a crash leaves of the queue, more often than `cargo test` has the time for.

use std::process::ExitCode;

use crate::shell::{Failure, Outcome, Run, workspace_root};

struct Command {
    name: &'static str,
    about: &'static str,
    /// What `cargo test` runs, and with which arguments.
    target: &'static [&'static str],
    test: &'static [&'static str],
    options: &'static [Setting],
}

struct Setting {
    option: &'static str,
    /// How the test hears of it.
    variable: &'static str,
    default: u64,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "power-cuts",
        about: "Power cuts of a simulated disk, which loses any part of what was not synced. One seed is one history; a failed\n\
                one is named, and `--cuts 1 --seed N` repeats it.",
        target: &["--lib"],
        test: &["log::tests::power::many_power_cuts", "--exact", "--ignored"],
        options: &[
            Setting { option: "--cuts", variable: "POWER_CUTS", default: 100_000 },
            Setting { option: "--seed", variable: "POWER_SEED", default: 0 },
        ],
    },
    Command {
        name: "kills",
        about: "Kills a process with 50 writers with SIGKILL, and checks what its queue has, again and again.",
        target: &["--test", "kill"],
        test: &["what_was_acknowledged_survives", "--exact"],
        options: &[Setting { option: "--times", variable: "KILLS", default: 100 }],
    },
    Command {
        name: "ext4-cuts",
        about: "Power cuts of an ext4 on a loop device, under 50 writers. Only root can do this.",
        target: &["--test", "ext4"],
        test: &["what_was_acknowledged_survives_a_power_cut", "--exact"],
        options: &[Setting { option: "--times", variable: "EXT4_CUTS", default: 200 }],
    },
];

/// [`None`]: there is no such command here.
pub(crate) fn main(name: &str, arguments: &[&str]) -> Option<ExitCode> {
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    if let ["--help" | "-h"] = arguments {
        println!("{}\n\nUsage: cargo xtask {name} [OPTION N]...\n", command.about);
        command.options.iter().for_each(|each| println!("  {} N  (default {})", each.option, each.default));
        return Some(ExitCode::SUCCESS);
    }
    Some(match command.settings(arguments).and_then(|settings| command.run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask {name}: {failure}");
            ExitCode::FAILURE
        }
    })
}

impl Command {
    /// Each variable with its value.
    fn settings(&self, arguments: &[&str]) -> Result<Vec<(&'static str, u64)>, Failure> {
        let mut settings: Vec<_> = self.options.iter().map(|each| (each.variable, each.default)).collect();
        for pair in arguments.chunks(2) {
            let place = self.options.iter().position(|each| each.option == pair[0]);
            match (place, pair.get(1).and_then(|value| value.parse().ok())) {
                (Some(place), Some(value)) => settings[place].1 = value,
                _ => {
                    let help = format!("`cargo xtask {} --help` explains the arguments.", self.name);
                    return Err(Failure::new(format!("`{}` is not understood.", pair.join(" ")), help));
                }
            }
        }
        Ok(settings)
    }

    fn run(&self, settings: &[(&str, u64)]) -> Outcome {
        let mut run = Run::cargo().dir(&workspace_root()).args(["test", "--release", "--package", "posthaste-queue"]);
        run = run.args(self.target).args(["--"]).args(self.test).args(["--nocapture"]);
        for (variable, value) in settings {
            run = run.env(variable, value.to_string());
        }
        run.remedy("What failed stands above, with how to repeat it.").run()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_are_checked() {
        let cuts = &COMMANDS[0];
        assert_eq!(cuts.settings(&["--seed", "7"]).ok(), Some(vec![("POWER_CUTS", 100_000), ("POWER_SEED", 7)]));
        assert!(cuts.settings(&["--seed"]).is_err());
        assert!(cuts.settings(&["--cuts", "many"]).is_err());
        assert!(main("nothing", &[]).is_none());
    }
}
