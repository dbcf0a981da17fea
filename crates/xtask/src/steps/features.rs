//! Every published library compiles without features, with each of its features alone, and with the
//! default ones.

use crate::shell::{Outcome, Run};
use crate::test::Context;

pub(crate) fn run(context: &Context) -> Outcome {
    for package in context.published() {
        let sets = std::iter::once(None).chain(package.features.keys().map(Some));
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
