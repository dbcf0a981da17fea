//! Every published library compiles without features and with each of its features alone.

use crate::shell::{Outcome, Run};
use crate::test::Context;

pub(crate) fn run(context: &Context) -> Outcome {
    for package in context.published() {
        let mut sets = vec![None];
        sets.extend(package.features.keys().filter(|name| *name != "default").map(Some));
        for feature in sets {
            let mut command =
                vec!["check", "--quiet", "--package", package.name.as_str(), "--lib", "--no-default-features"];
            if let Some(feature) = feature {
                command.extend(["--features", feature]);
            }
            let remedy = format!(
                "Features of {} must stand alone: name what the code needs in its [features] table.",
                package.name
            );
            Run::cargo().dir(&context.root).args(command).remedy(remedy).run()?;
        }
    }
    Ok(())
}
