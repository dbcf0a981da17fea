//! Routes in memory, by rules in order.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use posthaste_server::wire::ForwardPath;

use crate::{
    DomainPattern, DomainSet, DuplicateRule, Facts, Label, NextHop, Route, RouteError, RouteQuery, Routes, Rule,
    domains::{DomainMap, canonical},
};

/// Routes by rules: mail takes the first one whose conditions hold. Among routes by domain a
/// look-up costs the same for any number of them. Each rule with another condition, and before the
/// first route for the domain, costs a comparison.
///
/// ```
/// use posthaste_relay::{NextHop, Route, RouteTable};
/// let mut routes = RouteTable::empty();
/// routes.push(["example.org".parse()?, "*.example.org".parse()?], Route::hosts([("inside.example.org", 25)]));
/// routes.push(["*".parse()?], Route::new(NextHop::Mx));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Mail in the queue is known by its domain and by the [label](Label) of its rule. In a changed
/// table it takes the rule of that name, if there still is one for its domain and no route by
/// domain comes before it. Otherwise it takes its domain's route.
///
/// After a [reload](crate::Relay::reload), and at the start, the relay asks the rules again for
/// queued mail, and gives it the label that it would have now. What counts is recorded: sender,
/// recipient and client. The user and the tag are not: mail keeps the label of a rule with such
/// conditions while the others hold, and no other mail gets it. Recipients of one domain that were
/// queued together stay together: under their label if it still is right for one of them, and
/// otherwise under the first that is.
#[derive(Debug, Clone)]
pub struct RouteTable {
    /// All routes in order, without labels.
    routes: Vec<Arc<Route>>,
    /// The index in `routes` of the first route by domain for each pattern.
    indexes: DomainMap<usize>,
    /// The rules with another condition than domains, in order.
    rules: Vec<Arc<Placed>>,
    /// The index in `rules` of each label.
    labels: HashMap<Label, usize>,
}

/// A rule, and its place among the routes.
#[derive(Debug)]
struct Placed {
    index: usize,
    rule: Rule,
    /// Its route with the label.
    labelled: Arc<Route>,
}

impl RouteTable {
    /// Makes a table without a route: no mail is taken.
    pub fn empty() -> Self {
        Self { routes: Vec::new(), indexes: DomainMap::default(), rules: Vec::new(), labels: HashMap::new() }
    }

    /// Makes a table with one route for every domain.
    pub fn all(route: Route) -> Self {
        let mut table = Self::empty();
        table.push([DomainPattern::Any], route);
        table
    }

    /// Adds a route for these domains. It comes after the others.
    pub fn push(&mut self, domains: impl IntoIterator<Item = DomainPattern>, route: Route) {
        self.push_by_domain(&domains.into_iter().collect(), route);
    }

    /// Adds a rule. It comes after the others. Its route gets the rule's name as its label if it
    /// has conditions other than `domains`.
    ///
    /// # Errors
    /// Such a rule has that name already. Then the table stays as it was.
    pub fn push_rule(&mut self, rule: Rule) -> Result<(), DuplicateRule> {
        if rule.is_by_domain() {
            let all = || [DomainPattern::Any].into_iter().collect();
            self.push_by_domain(&rule.domains.unwrap_or_else(all), rule.route);
            return Ok(());
        }
        if self.labels.contains_key(&rule.name) {
            return Err(DuplicateRule(rule.name));
        }
        let index = self.routes.len();
        self.routes.push(Arc::new(Route { label: None, ..rule.route.clone() }));
        let labelled = Arc::new(Route { label: Some(rule.name.clone()), ..rule.route.clone() });
        self.labels.insert(rule.name.clone(), self.rules.len());
        self.rules.push(Arc::new(Placed { index, rule, labelled }));
        Ok(())
    }

    /// All routes, equal ones once.
    #[allow(clippy::mutable_key_type, reason = "the hash leaves TLS out, and equality compares pointers")]
    pub(crate) fn distinct(&self) -> HashSet<Arc<Route>> {
        self.routes.iter().cloned().collect()
    }

    /// Returns `true` if there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route of a message that is to be queued. It has a [label](Route::label) if more than the
    /// domain has decided. `None`: there is none. `<Postmaster>` without a domain has none here; a
    /// relay asks with its own name.
    pub fn of(&self, facts: &Facts<'_>) -> Option<&Arc<Route>> {
        let ForwardPath::Mailbox(mailbox) = facts.recipient else { return None };
        self.route(&RouteQuery::new(&canonical(&mailbox.domain())?, *facts))
    }

    /// The route of mail for a [canonical](crate::domains::canonical) domain. It has a label if the
    /// mail has facts and they decided. `None`: no route matches.
    pub(crate) fn route(&self, mail: &RouteQuery<'_>) -> Option<&Arc<Route>> {
        let by_domain = self.indexes.find(mail.domain);
        let is_before = |placed: &Placed| by_domain.is_none_or(|index| placed.index < index);
        match (mail.facts, mail.label) {
            (Some(facts), _) => {
                let mut before = self.rules.iter().take_while(|placed| is_before(placed));
                if let Some(placed) = before.find(|placed| placed.rule.holds(mail.domain, &facts)) {
                    return Some(&placed.labelled);
                }
            }
            (None, Some(label)) => {
                let placed = self.labels.get(label).and_then(|index| self.rules.get(*index));
                if let Some(placed) = placed.filter(|placed| is_before(placed) && placed.rule.has_domain(mail.domain)) {
                    return self.routes.get(placed.index);
                }
            }
            (None, None) => {}
        }
        self.routes.get(by_domain?)
    }

    /// The label that mail in the queue would have now, and the place of its rule. `None`: its
    /// domain decides.
    pub(crate) fn label_again(&self, domain: &str, facts: &Facts<'_>, kept: Option<&str>) -> Option<(usize, &Label)> {
        let by_domain = self.indexes.find(domain);
        let mut before = self.rules.iter().take_while(|placed| by_domain.is_none_or(|index| placed.index < index));
        let placed = before.find(|placed| placed.rule.holds_again(domain, facts, kept))?;
        Some((placed.index, &placed.rule.name))
    }

    fn push_by_domain(&mut self, domains: &DomainSet, route: Route) {
        self.indexes.add_all(domains, self.routes.len());
        self.routes.push(Arc::new(Route { label: None, ..route }));
    }
}

/// One route: all domains by MX, without TLS.
impl Default for RouteTable {
    fn default() -> Self {
        Self::all(Route::new(NextHop::Mx))
    }
}

impl Routes for RouteTable {
    async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        Ok(self.route(mail).cloned())
    }

    fn gives_labels(&self) -> bool {
        !self.rules.is_empty()
    }
}

#[cfg(test)]
mod tests;
