//! Shows that wire and session need no standard library.
//!
//! A target without std may be missing on a contributor's machine, so the proof is a program for
//! the host that defines its own panic handler and allocator. The compiler refuses it as soon as a
//! crate of the graph pulls in std ("found duplicate lang item `panic_impl`"). The proof is proved
//! as well: with std pulled in on purpose the same program must not compile.

use std::fs;
use std::path::Path;

use crate::shell::{Failure, Outcome, Run};
use crate::test::Context;

const CRATES: &[(&str, &str)] = &[("posthaste-wire", "crates/wire"), ("posthaste-session", "crates/session")];

const PROGRAM: &str = r#"#![no_std]
#[cfg(feature = "with-std")]
extern crate std;
extern crate alloc;
pub use posthaste_session as session;
pub use posthaste_wire as wire;

struct Nothing;
// Nothing runs this program: it only has to link.
unsafe impl core::alloc::GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 { core::ptr::null_mut() }
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}
#[global_allocator]
static NOTHING: Nothing = Nothing;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
"#;

pub(crate) fn run(context: &Context) -> Outcome {
    for (name, folder) in CRATES {
        let source = fs::read_to_string(context.root.join(folder).join("src/lib.rs")).unwrap_or_default();
        if !source.lines().any(|line| line.trim() == "#![no_std]" || line.contains("no_std)]")) {
            let remedy = format!("Put `#![no_std]` at the top of {folder}/src/lib.rs, and `extern crate alloc`.");
            return Err(Failure::new(format!("{name} does not declare itself no_std."), remedy));
        }
    }
    let folder = context.target.join("xtask/no-std");
    write_package(context, &folder).map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}.", folder.display()), "Make room, or mend its permissions.")
    })?;
    let build = |features: &[&str]| {
        let mut command = vec!["build", "--quiet", "--lib"];
        command.extend(features);
        Run::cargo().dir(&folder).env("CARGO_TARGET_DIR", &context.target).args(command)
    };
    let remedy =
        "`duplicate lang item` names the crate that pulls in std: switch its default features off in Cargo.toml.";
    build(&[]).remedy(remedy).run()?;
    println!("  and with std pulled in on purpose it must not compile:");
    let (compiled, _, errors) = build(&["--features", "with-std"]).capture()?;
    if compiled || !errors.contains("panic_impl") {
        let what = format!("The check cannot tell std from no std any more; the compiler said:\n{errors}");
        return Err(Failure::new(what, "Mend crates/xtask/src/steps/no_std.rs."));
    }
    Ok(())
}

fn write_package(context: &Context, folder: &Path) -> std::io::Result<()> {
    let mut manifest = String::from(
        "[workspace]\n\n[package]\nname = \"no-std-proof\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\npath = \"lib.rs\"\ncrate-type = [\"staticlib\"]\ntest = false\n\n[features]\nwith-std = []\n\n\
         [profile.dev]\npanic = \"abort\"\n\n[dependencies]\n",
    );
    for (name, path) in CRATES {
        let path = context.root.join(path);
        manifest.push_str(&format!("{name} = {{ path = {path:?}, default-features = false }}\n"));
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("lib.rs"), PROGRAM)?;
    // The versions that the workspace has been tested with.
    fs::copy(context.root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(())
}
