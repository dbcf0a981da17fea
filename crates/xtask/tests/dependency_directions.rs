//! Dependencies point one way:
//!
//! ```text
//! wire <- session <- tokio <- client <-+
//!                        ^             +-- relay <- examples
//!                        +--- server <-+
//!                             queue  <-+
//! ```
//!
//! `auth` sees wire alone, and of the libraries the relay alone sees it. The queue knows nothing of
//! SMTP, the facade `posthaste` may name every library, the testkit is seen by tests only.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Each library with the crates of this workspace that it may depend on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("posthaste-wire", &[]),
    ("posthaste-session", &["posthaste-wire"]),
    ("posthaste-tokio", &["posthaste-session", "posthaste-wire"]),
    ("posthaste-client", &["posthaste-tokio", "posthaste-session", "posthaste-wire"]),
    ("posthaste-server", &["posthaste-tokio", "posthaste-session", "posthaste-wire"]),
    ("posthaste-auth", &["posthaste-wire"]),
    ("posthaste-queue", &[]),
    (
        "posthaste-relay",
        &[
            "posthaste-auth",
            "posthaste-client",
            "posthaste-tokio",
            "posthaste-queue",
            "posthaste-server",
            "posthaste-session",
            "posthaste-wire",
        ],
    ),
    (
        "posthaste",
        &[
            "posthaste-auth",
            "posthaste-client",
            "posthaste-tokio",
            "posthaste-queue",
            "posthaste-relay",
            "posthaste-server",
            "posthaste-session",
            "posthaste-wire",
        ],
    ),
];

const TESTKIT: &str = "posthaste-testkit";

#[test]
fn libraries_depend_on_libraries_below_them_only() {
    let metadata = metadata();
    let ours = names(&metadata);
    for package in published(&metadata) {
        let may_use = MAY_USE.iter().find(|(name, _)| *name == package.name.as_str()).map(|(_, below)| *below);
        let may_use = may_use.unwrap_or_else(|| {
            panic!("{} is published and has no place in this test's table: give it one", package.name)
        });
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let name = dependency.name.as_str();
            assert!(
                !ours.contains(name) || may_use.contains(&name),
                "{} depends on {name}, which is not below it; it may use {may_use:?}. Move the code, or the type, to where both may see it.",
                package.name,
            );
        }
    }
}

#[test]
fn the_testkit_is_a_development_dependency_without_a_version() {
    for package in published(&metadata()) {
        for dependency in package.dependencies.iter().filter(|d| d.name == TESTKIT) {
            assert_eq!(
                dependency.kind,
                DependencyKind::Development,
                "{} depends on {TESTKIT} outside its tests; only [dev-dependencies] may name it",
                package.name
            );
            // Packaging drops a development dependency that has a path alone; with a version
            // crates.io would have to have it.
            assert_eq!(
                dependency.req.to_string(),
                "*",
                "{} asks for a version of {TESTKIT}, which is never published; name its path alone",
                package.name
            );
        }
    }
}

#[test]
fn wire_depends_on_three_crates() {
    let metadata = metadata();
    let wire = package(&metadata, "posthaste-wire");
    for dependency in wire.dependencies.iter().filter(|d| d.kind != DependencyKind::Development && !d.optional) {
        assert!(
            ["bytes", "memchr", "nom"].contains(&dependency.name.as_str()),
            "posthaste-wire depends on {}; by default it uses bytes, memchr and nom and nothing else",
            dependency.name
        );
    }
}

#[test]
fn wire_and_session_see_neither_runtime_nor_tls() {
    // As everybody gets them. An optional feature may name tokio-util's codec traits, never by
    // default.
    let metadata = load(&CargoOpt::SomeFeatures(vec![]));
    for root in ["posthaste-wire", "posthaste-session"] {
        let root = package(&metadata, root);
        for (name, path) in reachable(&metadata, &root.id) {
            let forbidden = ["tokio", "tokio-rustls", "rustls", "mio", "socket2", "rand", "getrandom", "fastrand"];
            assert!(
                !forbidden.contains(&name.as_str()),
                "{} reaches {name} by way of {}; it has no I/O, no clock and no random numbers",
                root.name,
                path.join(" -> ")
            );
        }
    }
}

#[test]
fn the_queue_reaches_nothing_of_smtp() {
    let metadata = metadata();
    let queue = package(&metadata, "posthaste-queue");
    for (name, path) in reachable(&metadata, &queue.id) {
        assert!(!name.starts_with("posthaste"), "posthaste-queue reaches {name} by way of {}", path.join(" -> "));
    }
}

/// Every crate that a normal or build dependency leads to, with the way there.
fn reachable(metadata: &Metadata, from: &PackageId) -> BTreeMap<String, Vec<String>> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves unless told not to");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeMap::new();
    let mut open = vec![(from, vec![metadata[from].name.to_string()])];
    while let Some((id, path)) = open.pop() {
        for dependency in &nodes[id].deps {
            let used = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            let name = metadata[&dependency.pkg].name.to_string();
            if !used || found.contains_key(&name) {
                continue;
            }
            let mut path = path.clone();
            path.push(name.clone());
            found.insert(name, path.clone());
            open.push((&dependency.pkg, path));
        }
    }
    found
}

fn metadata() -> Metadata {
    load(&CargoOpt::AllFeatures)
}

fn load(features: &CargoOpt) -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .features(features.clone())
        .exec()
        .expect("the workspace's manifests are valid")
}

fn published(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages().into_iter().filter(|p| p.publish.as_ref().is_none_or(|p| !p.is_empty())).collect()
}

fn package<'m>(metadata: &'m Metadata, name: &str) -> &'m Package {
    let packages = metadata.workspace_packages();
    packages
        .into_iter()
        .find(|package| package.name.as_str() == name)
        .unwrap_or_else(|| panic!("the workspace has no {name}"))
}

fn names(metadata: &Metadata) -> BTreeSet<String> {
    metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect()
}
