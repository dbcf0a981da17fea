#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accounts;
mod admit;
pub mod agent;
mod announcing;
mod ascii_fields;
mod deliver;
mod domains;
mod event;
mod hooks;
mod labels;
mod limits;
mod message;
mod offers;
mod opening;
mod operator;
mod options;
mod overload;
#[cfg(any(doc, doctest))]
#[doc = include_str!("../OVERLOAD.md")]
pub mod overload_ladder {}
mod policy;
mod rank;
mod receive;
mod recipients;
mod record;
mod relabel;
mod relay;
mod reload;
mod report;
mod retry;
mod route;
mod route_table;
mod rule;
mod shared;
mod sign;
mod sites;
mod source;
mod submission;
mod trace;
mod warm_up;
#[cfg(any(doc, doctest))]
#[doc = include_str!("../WHAT_HAPPENS.md")]
pub mod what_happens {}

pub use accounts::{AccountError, AccountTable, Accounts};
pub use deliver::Cause;
pub use domains::{DomainPattern, DomainPatternError, DomainSet};
pub use event::{Diagnostic, Event, NotReported, Observer, Totals, TracingObserver};
pub use limits::{Rate, SiteLimitTable, SiteLimits, SourceLimits};
pub use offers::{future_release, offers};
pub use operator::{
    Destination, Destinations, LastAttempt, MessageFilter, MessagePage, Operator, QueuedContent, QueuedMessage,
    QueuedRecipient, Reason, RecipientState, SenderPattern,
};
pub use options::{AddFields, DeliveryOptions, RelayOptions};
pub use overload::{Gauge, Overload, OverloadCause, OverloadOptions, OverloadState, Rung, Watermarks};
pub use policy::{Policy, PolicyTable, Recipients};
pub use receive::{RelayHandler, RelayService};
pub use recipients::{MailboxPattern, MailboxPatternError, MailboxSet, RecipientTable};
pub use relabel::Relabeling;
pub use relay::{Relay, RelayBuilder, SubmitError};
pub use reload::{FixedOption, ReloadError};
pub use report::{ReportKind, ReportWords, TemplateError};
pub use retry::RetrySchedule;
pub use route::{HostGroup, NextHop, Route, RouteError, RouteQuery, Routes, WeightedHost};
pub use route_table::RouteTable;
pub use rule::{DuplicateRule, Facts, Label, LabelError, Rule};
#[cfg(feature = "dkim")]
pub use sign::{DkimOptions, SignFor, SignatureError, Unsignable};
pub use sites::{Resting, SiteState, SourceState};
pub use source::{RestingSource, Source, SourcePool};
pub use submission::{SenderRule, SenderTable, Senders, SubmissionOptions, TagField, TagFieldError};
pub use warm_up::{SourceCount, WarmUp};

#[cfg(feature = "dkim")]
pub use posthaste_auth as auth;
pub use posthaste_client as client;
pub use posthaste_queue as queue;
pub use posthaste_server as server;
pub use server::{IpNet, NetworkSet, ipnet, session, wire};
