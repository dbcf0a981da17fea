use posthaste_server::{Layer as _, Service as _, layers::Access, wire::EhloName};

use super::{cx, mail, said, talk_with};
use crate::support::{self, Names};

#[tokio::test]
async fn a_client_is_admitted_or_refused_by_its_network() {
    let deny = Access::deny("192.0.2.0/24, 2001:db8::/32".parse().unwrap());
    let mut except = deny.clone();
    except.except = "192.0.2.7".parse().unwrap();
    let only = Access::only("10.0.0.0/8, 127.0.0.1".parse().unwrap());
    let refused = |address: &str| format!("554 5.7.1 No SMTP service for {address}");
    for (layer, address, is_refused) in [
        (&deny, "192.0.2.7", true),
        (&deny, "::ffff:192.0.2.7", true),
        (&deny, "192.0.3.7", false),
        (&deny, "2001:db8::1", true),
        (&deny, "2001:db9::1", false),
        (&deny, "local", false),
        (&except, "192.0.2.7", false),
        (&except, "192.0.2.8", true),
        (&except, "2001:db8::1", true),
        (&only, "10.1.2.3", false),
        (&only, "local", false),
        (&only, "11.1.2.3", true),
        (&only, "::1", true),
        (&only, "::ffff:10.0.0.1", false),
        (&Access::deny("".parse().unwrap()), "192.0.2.7", false),
        (&Access::only("".parse().unwrap()), "192.0.2.7", true),
    ] {
        let expected = if is_refused { refused(address.trim_start_matches("::ffff:")) } else { "ok".to_owned() };
        assert_eq!(said(layer.clone().connect(&cx(address)).await), expected, "{layer:?}");
    }
}

/// Users log in from hosts of any name, and a login says more than a sender does.
#[tokio::test]
async fn lists_of_names_and_senders_are_not_for_users() {
    let mut layer = Access::default();
    layer.hellos = "*.dyn.test".parse().unwrap();
    layer.senders = "b.test".parse().unwrap();
    let mut user = cx("192.0.2.7");
    let mut settings = (*user.settings).clone();
    settings.offers.demand_auth = true;
    user.settings = settings.into();
    let name = EhloName::parse("laptop.dyn.test").unwrap().into_owned();
    assert_eq!(said(layer.hello(&user, &name).await), "ok");
    assert_eq!(said(layer.mail(&user, &mail("jo@b.test")).await), "550 5.7.1 No mail from this sender is taken here");
    user.peer.identity = Some("jo".into());
    assert_eq!(said(layer.mail(&user, &mail("jo@b.test")).await), "ok");
}

#[tokio::test]
async fn a_name_and_a_sender_are_refused_by_their_lists_whatever_the_network() {
    let mut layer = Access::only("192.0.2.0/24".parse().unwrap());
    layer.hellos = "ylmf-pc, *.dyn.test, [192.0.2.7]".parse().unwrap();
    layer.senders = "offers@a.test, b.test".parse().unwrap();
    let cx = cx("192.0.2.7");
    for (name, is_refused) in [
        ("YLMF-pc", true),
        ("a.dyn.test", true),
        ("[192.0.2.7]", true),
        ("dyn.test", false),
        ("offers@a.test", false),
        ("b.test", false),
    ] {
        let name = EhloName::parse(name).unwrap().into_owned();
        let expected = if is_refused { "550 5.7.1 No SMTP service under this name" } else { "ok" };
        assert_eq!(said(layer.hello(&cx, &name).await), expected, "{name}");
    }
    for (sender, is_refused) in [
        ("Offers@A.test", true),
        ("jo@b.test", true),
        ("jo@a.test", false),
        ("jo@c.b.test", false),
        ("jo@ylmf-pc", false),
        ("", false),
    ] {
        let expected = if is_refused { "550 5.7.1 No mail from this sender is taken here" } else { "ok" };
        assert_eq!(said(layer.mail(&cx, &mail(sender)).await), expected, "{sender}");
    }
}

#[tokio::test]
async fn a_client_with_a_listed_name_or_sender_may_go_on_with_another() {
    let mut layer = Access::default();
    layer.hellos = "bad.test".parse().unwrap();
    layer.senders = "bad.test".parse().unwrap();
    let mut talk = talk_with(Names::default().layer(layer), "192.0.2.7", support::settings());
    assert!(talk.reply().await.starts_with("220 "));
    for hello in ["EHLO bad.test", "HELO BAD.test"] {
        talk.expect(hello, "550 5.7.1").await;
        talk.expect("MAIL FROM:<a@b.test>", "503").await;
    }
    talk.expect("EHLO good.test", "250").await;
    talk.expect("MAIL FROM:<a@bad.test>", "550 5.7.1").await;
    talk.expect("RCPT TO:<a@d.test>", "503").await;
    talk.expect("MAIL FROM:<>", "250").await;
}

#[tokio::test]
async fn a_denied_client_gets_a_refusal_and_the_end() {
    let layer = Access::deny("192.0.2.7".parse().unwrap());
    let mut talk = talk_with(Names::default().layer(layer.clone()), "192.0.2.7", support::settings());
    assert_eq!(talk.reply().await, "554 5.7.1 No SMTP service for 192.0.2.7");
    assert_eq!(talk.reply().await, "<eof>");
    talk_with(Names::default().layer(layer), "192.0.2.8", support::settings()).greeted().await;
}
