//! Reports of how TLS went, in the form of RFC 8460.

use std::{
    io::Read as _,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use posthaste_client::{
    Answer, ClientError, ConnectError, MxRecord, ResolveError, Resolver, Stage, rustls,
    tls_rpt::{
        AppliedPolicy, Destination, DestinationError, Failure, Period, Recorder, Report, ResultType, Submitter, Tally,
        destinations,
    },
    wire::{Domain, Mailbox},
};
use serde_json::{Value, json};

fn submitter() -> Submitter {
    let contact = Mailbox::parse("sts-reporting@company-x.example").unwrap().into_owned();
    Submitter::new("Company-X".to_owned(), Domain::parse("mail.company-x.example").unwrap().into_owned(), contact)
}

/// The middle of 2016-04-01.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_459_468_800 + 43_200)
}

fn report(tally: Tally) -> Report {
    Report::new(tally, &submitter(), Period::day_of(noon()))
}

/// What RFC 8460 appendix B counts, with its policy. It gives the pattern of hosts as a text, and
/// section 4.4 says that it is an array.
#[cfg(feature = "mta-sts")]
#[test]
fn a_report_is_the_one_of_the_rfcs_example() {
    use posthaste_client::mta_sts::Policy;

    let policy = "version: STSv1\nmode: testing\nmx: *.mail.company-y.example\nmax_age: 86400\n";
    let policy = AppliedPolicy::sts(&Policy::parse(policy.as_bytes()).unwrap());
    let recorder = Recorder::default();
    for _ in 0..5_326 {
        recorder.succeeded("company-y.example", &policy);
    }
    let failure = |result, sending: &str, host: &str| {
        let mut failure = Failure::new(result);
        (failure.sending_ip, failure.mx_host) = (sending.parse().ok(), host.to_owned());
        failure
    };
    let expired = failure(ResultType::CertificateExpired, "2001:db8:abcd:12::1", "mx1.mail.company-y.example");
    let mut clear = failure(ResultType::StarttlsNotSupported, "2001:db8:abcd:13::1", "mx2.mail.company-y.example");
    clear.receiving_ip = "203.0.113.56".parse().ok();
    let mut other = failure(ResultType::ValidationFailure, "198.51.100.62", "mx-backup.mail.company-y.example");
    other.receiving_ip = "203.0.113.58".parse().ok();
    other.reason = "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED".to_owned();
    for (failure, count) in [(expired, 100), (clear, 200), (other, 3)] {
        for _ in 0..count {
            recorder.failed("company-y.example", &policy, failure.clone());
        }
    }

    let report = report(recorder.take().remove(0));
    let expected = json!({
        "organization-name": "Company-X",
        "date-range": { "start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z" },
        "contact-info": "sts-reporting@company-x.example",
        "report-id": report.id(),
        "policies": [{
            "policy": {
                "policy-type": "sts",
                "policy-string":
                    ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
                "policy-domain": "company-y.example",
                "mx-host": ["*.mail.company-y.example"],
            },
            "summary": { "total-successful-session-count": 5_326, "total-failure-session-count": 303 },
            "failure-details": [{
                "result-type": "starttls-not-supported",
                "sending-mta-ip": "2001:db8:abcd:13::1",
                "receiving-mx-hostname": "mx2.mail.company-y.example",
                "receiving-ip": "203.0.113.56",
                "failed-session-count": 200,
            }, {
                "result-type": "certificate-expired",
                "sending-mta-ip": "2001:db8:abcd:12::1",
                "receiving-mx-hostname": "mx1.mail.company-y.example",
                "failed-session-count": 100,
            }, {
                "result-type": "validation-failure",
                "sending-mta-ip": "198.51.100.62",
                "receiving-ip": "203.0.113.58",
                "receiving-mx-hostname": "mx-backup.mail.company-y.example",
                "failed-session-count": 3,
                "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
            }],
        }],
    });
    assert_eq!(serde_json::from_slice::<Value>(report.to_json()).unwrap(), expected);
}

#[test]
fn each_policy_of_a_domain_is_reported_by_itself() {
    let recorder = Recorder::default();
    let records = ["3 1 1 1f850a337e6db9c6", "2 0 1 8bda0e"].map(str::to_owned);
    recorder.succeeded("d.test", &AppliedPolicy::tlsa(records.clone()));
    recorder.failed("d.test", &AppliedPolicy::none(), Failure::new(ResultType::StsPolicyFetchError));
    let json: Value = serde_json::from_slice(report(recorder.take().remove(0)).to_json()).unwrap();
    let expected = json!([{
        "policy": { "policy-type": "tlsa", "policy-string": records, "policy-domain": "d.test" },
        "summary": { "total-successful-session-count": 1, "total-failure-session-count": 0 },
    }, {
        "policy": { "policy-type": "no-policy-found", "policy-domain": "d.test" },
        "summary": { "total-successful-session-count": 0, "total-failure-session-count": 1 },
        "failure-details": [{ "result-type": "sts-policy-fetch-error", "failed-session-count": 1 }],
    }]);
    assert_eq!(json["policies"], expected);
}

#[test]
fn a_message_has_the_form_of_the_rfc_and_the_report_within() {
    let recorder = Recorder::default();
    for number in 0..50 {
        let mut failure = Failure::new(ResultType::ValidationFailure);
        failure.mx_host = format!("mx{number}.d.test");
        recorder.failed("d.test", &AppliedPolicy::none(), failure);
    }
    let report = report(recorder.take().remove(0));
    let message = report.message(&Mailbox::parse("reports@d.test").unwrap().into_owned(), noon());
    let message = String::from_utf8(message).unwrap();
    assert!(
        message.is_ascii() && message.split("\r\n").all(|line| line.len() <= 78 && !line.contains(['\r', '\n'])),
        "{message}"
    );

    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let (boundary, id) = (head.split("boundary=\"").nth(1).unwrap().trim_end_matches('"'), report.id());
    let expected = format!(
        "From: <sts-reporting@company-x.example>\r\n\
         To: <reports@d.test>\r\n\
         Date: Fri, 1 Apr 2016 12:00:00 +0000\r\n\
         Subject: Report Domain: d.test\r\n \
         Submitter: mail.company-x.example\r\n \
         Report-ID: <{id}>\r\n\
         Message-ID: <{id}>\r\n\
         TLS-Report-Domain: d.test\r\n\
         TLS-Report-Submitter: mail.company-x.example\r\n\
         Auto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n \
         boundary=\"{boundary}\""
    );
    assert_eq!(head, expected);

    let parts: Vec<_> = body.split(&format!("--{boundary}")).collect();
    let [_, text, attachment, "--\r\n"] = parts[..] else { panic!("{parts:?}") };
    assert!(text.starts_with("\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n"), "{text}");
    let (head, encoded) = attachment.split_once("\r\n\r\n").unwrap();
    let name = "mail.company-x.example!d.test!1459468800!1459555199.json.gz";
    assert_eq!(
        head.trim_start(),
        format!(
            "Content-Type: application/tlsrpt+gzip\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n \
             filename=\"{name}\""
        )
    );
    assert_eq!(report.file_name(), name);
    let compressed = STANDARD.decode(encoded.replace("\r\n", "")).unwrap();
    let mut json = Vec::new();
    GzDecoder::new(&compressed[..]).read_to_end(&mut json).unwrap();
    assert_eq!((json.as_slice(), compressed), (report.to_json(), report.to_gzip()));
}

#[test]
fn reports_of_one_day_have_different_ids() {
    let recorder = Recorder::default();
    let id = || {
        recorder.succeeded("d.test", &AppliedPolicy::none());
        report(recorder.take().remove(0)).id().to_owned()
    };
    assert_ne!(id(), id());
}

#[test]
fn a_period_is_a_day_in_utc_whatever_the_clock_says() {
    for (seconds, start) in [(0, 0), (86_399, 0), (86_400, 86_400), (1_459_555_199, 1_459_468_800)] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let [start, end] = [start, start + 86_399].map(|time| SystemTime::UNIX_EPOCH + Duration::from_secs(time));
        assert_eq!(Period::day_of(time), Period::new(start, end), "{seconds}");
    }
    // Before 1970, and beyond the years of a date.
    let recorder = Recorder::default();
    for time in [SystemTime::UNIX_EPOCH - Duration::from_secs(1), SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)]
    {
        recorder.succeeded("d.test", &AppliedPolicy::none());
        let report = Report::new(recorder.take().remove(0), &submitter(), Period::day_of(time));
        report.message(&Mailbox::parse("a@d.test").unwrap().into_owned(), time);
        assert!(serde_json::from_slice::<Value>(report.to_json()).is_ok());
    }
}

#[test]
fn a_connection_that_failed_for_its_tls_is_reported_as_the_rfc_says() {
    use rustls::CertificateError::{BadSignature, Expired, NotValidForName, NotValidYet, UnknownIssuer};
    let handshake = |fault: rustls::Error| ConnectError::Tls(ClientError::Io(std::io::Error::other(fault)));
    let certificate = |fault| handshake(rustls::Error::InvalidCertificate(fault));
    for (error, expected) in [
        (ConnectError::TlsUnavailable, Some("starttls-not-supported")),
        (certificate(NotValidForName), Some("certificate-host-mismatch")),
        (certificate(Expired), Some("certificate-expired")),
        (certificate(NotValidYet), Some("certificate-expired")),
        (certificate(UnknownIssuer), Some("certificate-not-trusted")),
        (certificate(BadSignature), Some("certificate-not-trusted")),
        (handshake(rustls::Error::DecryptError), Some("validation-failure")),
        (ConnectError::TlsName("1".to_owned()), Some("validation-failure")),
        (ConnectError::OpportunisticTls(Box::new(certificate(Expired))), Some("certificate-expired")),
        (
            ConnectError::Conversation { stage: Stage::StartTls, error: ClientError::Timeout { awaited: None } },
            Some("validation-failure"),
        ),
        (ConnectError::Conversation { stage: Stage::Greeting, error: ClientError::Timeout { awaited: None } }, None),
        (ConnectError::NoAddress, None),
    ] {
        let failure = Failure::of(&error, "mx.d.test");
        assert_eq!(failure.as_ref().map(|failure| failure.result.as_str()), expected, "{error}");
        assert!(failure.is_none_or(|failure| failure.mx_host == "mx.d.test" && !failure.reason.is_empty()));
    }
}

#[cfg(feature = "mta-sts")]
#[test]
fn a_policy_that_was_not_learnt_is_reported_as_the_rfc_says() {
    use posthaste_client::mta_sts::{FetchError, PolicyError, Problem, RecordError};
    for (problem, expected) in [
        (Problem::Dns(ResolveError::Temporary("SERVFAIL".to_owned())), "sts-policy-fetch-error"),
        (Problem::Fetch(FetchError::Status(404)), "sts-policy-fetch-error"),
        (Problem::Fetch(FetchError::Certificate("expired".to_owned())), "sts-webpki-invalid"),
        (Problem::Record(RecordError::Several(2)), "sts-policy-invalid"),
        (Problem::Policy(PolicyError::Mode(2)), "sts-policy-invalid"),
    ] {
        let failure = Failure::of_policy(&problem);
        assert_eq!((failure.result.as_str(), failure.reason), (expected, problem.to_string()));
    }
}

/// A zone with one TXT record, or none.
struct Zone(Result<&'static str, ResolveError>);

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<std::net::IpAddr>, ResolveError> {
        Ok(Answer::default())
    }

    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        assert_eq!(name, "_smtp._tls.d.test");
        self.0.clone().map(|record| vec![record.into()])
    }
}

#[tokio::test]
async fn a_domain_says_in_the_dns_where_it_wants_reports() {
    let found = async |record| destinations(&Zone(record), "d.test").await;
    let mailbox = Mailbox::parse("reports@d.test").unwrap().into_owned();
    assert_eq!(found(Ok("v=TLSRPTv1;rua=mailto:reports@d.test")).await, Ok(vec![Destination::Mail(mailbox)]));
    assert_eq!(found(Ok("v=spf1 -all")).await, Ok(Vec::new()));
    assert_eq!(found(Err(ResolveError::NoSuchName)).await, Ok(Vec::new()));
    let temporary = ResolveError::Temporary("SERVFAIL".to_owned());
    assert_eq!(found(Err(temporary.clone())).await, Err(DestinationError::Dns(temporary)));
}
