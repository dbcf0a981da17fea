use posthaste_server::wire::{Mail, Rcpt, ReversePath};

use super::*;
use crate::NetworkSet;

/// A route that is known by the name of its host.
fn to(host: &str) -> Route {
    Route::hosts([(host, 25)])
}

/// The host of a route, and its label.
fn host(route: Option<&Arc<Route>>) -> Option<(&str, Option<&str>)> {
    let route = route?;
    let NextHop::Hosts(groups) = &route.to else { panic!("{route:?}") };
    Some((&groups[0].0[0].name, route.label.as_ref().map(Label::as_str)))
}

/// Keys with their values.
type Conditions = &'static [(&'static str, &'static [&'static str])];

fn rule(name: &str, conditions: Conditions) -> Rule {
    let mut rule = Rule::new(name.parse().unwrap(), to(name));
    for (key, values) in conditions {
        let mailboxes = || Some(values.iter().map(|text| text.parse().unwrap()).collect());
        let texts = || Some(values.iter().map(|text| (*text).to_owned()).collect());
        match *key {
            "domains" => {
                rule.domains = Some(values.iter().map(|text| text.parse::<DomainPattern>().unwrap()).collect())
            }
            "recipients" => rule.recipients = mailboxes(),
            "senders" => rule.senders = mailboxes(),
            "identities" => rule.identities = texts(),
            "clients" => rule.clients = Some(values.join(",").parse::<NetworkSet>().unwrap()),
            "tags" => rule.tags = texts(),
            other => panic!("{other}"),
        }
    }
    rule
}

/// Rules in order. Each leads to a host of its name.
fn table() -> RouteTable {
    let mut table = RouteTable::empty();
    let rules: &[(&str, Conditions)] = &[
        ("abuse", &[("recipients", &["abuse@a.test", "abuse@b\u{fc}cher.test"])]),
        ("early", &[("domains", &["early.test", "*.early.test"])]),
        ("boss", &[("recipients", &["boss@a.test", "*.vip.test"]), ("identities", &["jo"])]),
        ("news", &[("senders", &["news@s.test", "*.news.test"])]),
        ("inside", &[("clients", &["10.0.0.0/8", "2001:db8::/32"]), ("domains", &["a.test", "b.test"])]),
        ("jo", &[("identities", &["jo", "amy"])]),
        ("bulk", &[("tags", &["summer", "winter"]), ("identities", &["mass"])]),
        ("summer", &[("tags", &["summer"])]),
        ("none", &[("senders", &[])]),
        ("domain", &[("domains", &["a.test"])]),
        ("below", &[("domains", &["*.a.test"])]),
        ("late", &[("identities", &["late"]), ("domains", &["a.test", "c.test"])]),
        ("rest", &[("domains", &["*.test"])]),
    ];
    for (name, conditions) in rules {
        table.push_rule(rule(name, conditions)).unwrap();
    }
    table
}

/// Facts, and the rule that has the mail.
struct Row {
    rcpt: &'static str,
    from: &'static str,
    identity: Option<&'static str>,
    client: Option<&'static str>,
    tag: Option<&'static str>,
    by: Option<&'static str>,
}

const fn row(rcpt: &'static str, from: &'static str, by: Option<&'static str>) -> Row {
    Row { rcpt, from, identity: None, client: None, tag: None, by }
}

const fn of(identity: &'static str, row: Row) -> Row {
    Row { identity: Some(identity), ..row }
}

const fn at(client: &'static str, row: Row) -> Row {
    Row { client: Some(client), ..row }
}

const fn tagged(tag: &'static str, row: Row) -> Row {
    Row { tag: Some(tag), ..row }
}

const S: &str = "<s@s.test>";

const ROWS: &[Row] = &[
    // By recipient.
    row("<abuse@a.test>", S, Some("abuse")),
    row("<ABUSE@A.test>", S, Some("abuse")),
    row("<\"ab\\use\"@a.test>", S, Some("abuse")),
    row("<abuse@xn--bcher-kva.test>", S, Some("abuse")),
    row("<abuse@b\u{fc}cher.test>", S, Some("abuse")),
    row("<abuse+x@a.test>", S, Some("domain")),
    row("<abuse@b.test>", S, Some("rest")),
    of("jo", row("<abuse@a.test>", S, Some("abuse"))),
    // A route by domain before the others hides them.
    of("jo", row("<a@early.test>", S, Some("early"))),
    tagged("summer", row("<a@x.early.test>", "<news@s.test>", Some("early"))),
    at("10.1.2.3", row("<a@EARLY.test>", S, Some("early"))),
    // All conditions hold, or none counts.
    of("jo", row("<boss@a.test>", S, Some("boss"))),
    of("amy", row("<boss@a.test>", S, Some("jo"))),
    row("<boss@a.test>", S, Some("domain")),
    of("jo", row("<any@x.vip.test>", S, Some("boss"))),
    of("jo", row("<any@vip.test>", S, Some("jo"))),
    // By sender: a mailbox, or a domain.
    row("<a@a.test>", "<news@s.test>", Some("news")),
    row("<a@c.test>", "<NEWS@S.test>", Some("news")),
    row("<a@a.test>", "<any@x.news.test>", Some("news")),
    row("<a@a.test>", "<any@news.test>", Some("domain")),
    row("<a@a.test>", "<>", Some("domain")),
    of("jo", row("<a@a.test>", "<news@s.test>", Some("news"))),
    row("<a@other.example>", "<news@s.test>", Some("news")),
    // By client.
    at("10.1.2.3", row("<a@a.test>", S, Some("inside"))),
    at("::ffff:10.1.2.3", row("<a@a.test>", S, Some("inside"))),
    at("2001:db8::7", row("<a@b.test>", S, Some("inside"))),
    at("11.1.2.3", row("<a@a.test>", S, Some("domain"))),
    at("10.1.2.3", row("<a@c.test>", S, Some("rest"))),
    at("10.1.2.3", of("jo", row("<a@a.test>", S, Some("inside")))),
    at("10.1.2.3", of("jo", row("<a@c.test>", S, Some("jo")))),
    // By identity.
    of("jo", row("<a@a.test>", S, Some("jo"))),
    of("amy", row("<a@c.test>", S, Some("jo"))),
    of("Jo", row("<a@a.test>", S, Some("domain"))),
    of("", row("<a@a.test>", S, Some("domain"))),
    of("jo", row("<a@other.example>", S, Some("jo"))),
    of("jo", row("<a@[192.0.2.1]>", S, Some("jo"))),
    // By tag.
    of("mass", tagged("summer", row("<a@a.test>", S, Some("bulk")))),
    of("mass", tagged("winter", row("<a@a.test>", S, Some("bulk")))),
    tagged("summer", row("<a@a.test>", S, Some("summer"))),
    tagged("winter", row("<a@a.test>", S, Some("domain"))),
    tagged("Summer", row("<a@a.test>", S, Some("domain"))),
    of("mass", row("<a@a.test>", S, Some("domain"))),
    // A rule after the domain's route has no mail of that domain.
    of("late", row("<a@a.test>", S, Some("domain"))),
    of("late", row("<a@c.test>", S, Some("late"))),
    of("late", row("<a@x.a.test>", S, Some("below"))),
    // The rest.
    row("<a@x.y.a.test>", S, Some("below")),
    row("<a@z.test>", S, Some("rest")),
    row("<a@other.example>", S, None),
    row("<a@[192.0.2.1]>", S, None),
    // The postmaster of this host, which is relay.test here.
    row("<Postmaster>", S, Some("rest")),
    of("jo", row("<Postmaster>", S, Some("jo"))),
];

/// The domain of a recipient, as the tables have it.
fn domain(recipient: &ForwardPath) -> String {
    let own_name = "relay.test".parse().unwrap();
    canonical(&crate::labels::domain_of(recipient, &own_name)).unwrap().into_owned()
}

fn found<'t>(table: &'t RouteTable, row: &Row) -> Option<(&'t str, Option<&'t str>)> {
    let rcpt: Rcpt = row.rcpt.parse().unwrap();
    let mail: Mail = format!("{} SMTPUTF8", row.from).parse().unwrap();
    let client = row.client.map(|client| client.parse().unwrap());
    let (recipient, sender) = (&rcpt.forward_path, &mail.reverse_path);
    let facts = Facts { identity: row.identity, client, tag: row.tag, ..Facts::new(sender, recipient) };
    host(table.route(&RouteQuery::new(&domain(recipient), facts)))
}

const BY_DOMAIN: [&str; 4] = ["early", "domain", "below", "rest"];

#[test]
fn mail_takes_the_first_rule_whose_conditions_hold() {
    let table = table();
    assert!(ROWS.len() >= 40);
    for row in ROWS {
        let (host, label) = found(&table, row).unzip();
        assert_eq!(host, row.by, "{} {} {:?}", row.rcpt, row.from, row.identity);
        let wanted = row.by.filter(|by| !BY_DOMAIN.contains(by));
        assert_eq!(label.flatten(), wanted, "a label if more than the domain decided: {}", row.rcpt);
    }
}

/// What the queue knows of the mail leads to the same route.
#[test]
fn queued_mail_finds_its_route_again_by_its_label() {
    let table = table();
    for row in ROWS {
        let rcpt: Rcpt = row.rcpt.parse().unwrap();
        let (name, label) = found(&table, row).unzip();
        let domain = domain(&rcpt.forward_path);
        let queued = table.route(&RouteQuery::queued(&domain, label.flatten()));
        assert_eq!(host(queued), name.map(|name| (name, None)), "{} {:?}", row.rcpt, row.identity);
    }
}

#[test]
fn in_a_changed_table_a_label_counts_only_where_its_rule_could() {
    let by = |changes: &[(&'static str, Conditions)], domain: &str, label: &str| {
        let mut table = RouteTable::empty();
        changes.iter().for_each(|(name, conditions)| table.push_rule(rule(name, conditions)).unwrap());
        host(table.route(&RouteQuery::queued(domain, Some(label)))).map(|(name, _)| name.to_owned())
    };
    let jo: (&str, Conditions) = ("jo", &[("identities", &["jo"])]);
    let jo_at_a: (&str, Conditions) = ("jo", &[("identities", &["jo"]), ("domains", &["a.test"])]);
    let by_sender: (&str, Conditions) = ("jo", &[("senders", &["x.test"])]);
    let by_domain: (&str, Conditions) = ("jo", &[("domains", &["a.test"])]);
    let other: (&str, Conditions) = ("other", &[("identities", &["jo"])]);
    let all: (&str, Conditions) = ("all", &[]);
    for (changes, domain, wanted) in [
        // It is there, with whatever conditions it has now.
        (&[jo, all][..], "a.test", Some("jo")),
        (&[by_sender, all], "a.test", Some("jo")),
        // It is gone, or by domain alone, or not for this domain, or behind the domain's route.
        (&[all], "a.test", Some("all")),
        (&[by_domain, all], "b.test", Some("all")),
        (&[jo_at_a, all], "a.test", Some("jo")),
        (&[jo_at_a, all], "b.test", Some("all")),
        (&[all, jo], "a.test", Some("all")),
        (&[other], "a.test", None),
        (&[], "a.test", None),
    ] {
        assert_eq!(by(changes, domain, "jo").as_deref(), wanted, "{changes:?} {domain}");
    }
}

#[test]
fn names_of_rules_with_labels_differ() {
    let mut table = table();
    let before = (table.routes.len(), table.rules.len(), table.labels.len());
    assert_eq!(table.push_rule(rule("jo", &[("tags", &["x"])])), Err(DuplicateRule("jo".parse().unwrap())));
    assert_eq!((table.routes.len(), table.rules.len(), table.labels.len()), before);
    // A rule by domain needs no label.
    assert_eq!(table.push_rule(rule("jo", &[("domains", &["x.example"])])), Ok(()));
}

#[test]
fn the_label_of_a_route_is_its_rule_alone() {
    let mut table = RouteTable::empty();
    let mut route = to("a");
    route.label = Some("other".parse().unwrap());
    table.push([DomainPattern::Any], route.clone());
    let mut named = rule("named", &[("identities", &["jo"])]);
    named.route = route;
    let mut ruled = RouteTable::empty();
    ruled.push_rule(named).unwrap();
    let row = of("jo", row("<a@a.test>", S, None));
    assert_eq!(found(&table, &row), Some(("a", None)));
    assert_eq!(found(&ruled, &row), Some(("a", Some("named"))));
}

/// A table by domain alone answers as a search from its beginning does, with facts, without, and
/// with a label that it does not know.
#[test]
fn a_table_by_domain_answers_as_it_did() {
    let sender = ReversePath::Null;
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let name = |random: &mut fastrand::Rng| {
            let labels = random.usize(1..4);
            (0..labels).map(|_| ["a", "b", "c"][random.usize(0..3)]).collect::<Vec<_>>().join(".")
        };
        let mut table = RouteTable::empty();
        let mut plain: Vec<Vec<DomainPattern>> = Vec::new();
        for index in 0..random.usize(0..12) {
            let pattern = |random: &mut fastrand::Rng| match random.u8(0..10) {
                0 => DomainPattern::Any,
                1..4 => DomainPattern::Below(name(random)),
                _ => DomainPattern::Exact(name(random)),
            };
            let patterns: Vec<_> = (0..random.usize(0..4)).map(|_| pattern(&mut random)).collect();
            let mut route = to(&index.to_string());
            route.chunking = random.bool();
            match random.bool() {
                true => table.push(patterns.clone(), route),
                false => {
                    let mut rule = Rule::new("same".parse().unwrap(), route);
                    rule.domains = Some(patterns.iter().cloned().collect());
                    table.push_rule(rule).unwrap();
                }
            }
            plain.push(patterns);
        }
        for _ in 0..20 {
            let domain = name(&mut random);
            let has = |pattern: &DomainPattern| match pattern {
                DomainPattern::Any => true,
                DomainPattern::Exact(name) => *name == domain,
                DomainPattern::Below(parent) => domain.strip_suffix(parent).is_some_and(|sub| sub.ends_with('.')),
            };
            let wanted = plain.iter().position(|patterns| patterns.iter().any(has)).map(|index| index.to_string());
            let recipient: ForwardPath = format!("<x@{domain}>").parse::<Rcpt>().unwrap().forward_path;
            let mail = RouteQuery::new(&domain, Facts::new(&sender, &recipient));
            let asked = [mail, RouteQuery::queued(&domain, None), RouteQuery::queued(&domain, Some("same"))];
            for mail in asked {
                let found = host(table.route(&mail));
                assert_eq!(found.map(|(host, _)| host), wanted.as_deref(), "seed {seed}: {domain} {plain:?}");
                assert_eq!(found.and_then(|(_, label)| label), None);
            }
        }
        assert!(!table.gives_labels());
    }
}
