//! Paths with the parts of a mailbox in them.

use std::path::{Path, PathBuf};

use posthaste_server::{Refusal, refusal, wire::Mailbox};
use thiserror::Error;

use crate::domains::canonical;

/// A path such as `/var/mail/{domain}/{local}`. What it makes of a mailbox is always below its
/// root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// The folders before the first with a placeholder; all of them if none has one.
    root: PathBuf,
    /// The folders from the first with a placeholder on.
    folders: Vec<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Domain,
    Local,
}

/// Why a text is no template of a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// It does not begin with a slash.
    #[error("{0:?} is no absolute path; begin it with a slash, as in /var/mail/{{domain}}/{{local}}")]
    NotAbsolute(String),
    /// A folder is empty, `.` or `..`, or it has a control character.
    #[error("{0:?} is no name of a folder; write the path without `.`, `..` and double slashes")]
    Folder(String),
    /// It has another placeholder, or a brace without its partner.
    #[error("{0:?} has a placeholder that is not known; there are {{domain}} and {{local}}")]
    Placeholder(String),
}

/// The most octets of a folder's name, on every usual file system.
const MAX_NAME: usize = 255;

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let below = text.strip_prefix('/').ok_or_else(|| TemplateError::NotAbsolute(text.to_owned()))?;
        let below = below.strip_suffix('/').unwrap_or(below);
        let (mut root, mut folders) = (PathBuf::from("/"), Vec::new());
        for folder in below.split('/') {
            if matches!(folder, "" | "." | "..") || folder.contains(char::is_control) {
                return Err(TemplateError::Folder(folder.to_owned()));
            }
            let parts = parts(folder).ok_or_else(|| TemplateError::Placeholder(folder.to_owned()))?;
            match &parts[..] {
                [Part::Text(name)] if folders.is_empty() => root.push(name),
                _ => folders.push(parts),
            }
        }
        Ok(Self { root, folders })
    }

    /// The folder that must be there. All others are made.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The names of the folders of a mailbox, each below the one before, the first below the root.
    /// Upper and lower case are the same.
    ///
    /// # Errors
    /// 550, if a name could lead elsewhere, or is too long.
    pub(super) fn folders(&self, mailbox: &Mailbox) -> Result<Vec<String>, Refusal> {
        let domain = mailbox.domain();
        let domain = canonical(&domain).ok_or(refusal!("550 5.1.2 That domain cannot be in the DNS"))?;
        let local = mailbox.unquoted_local_part().to_lowercase();
        let is_safe = |name: &str| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(|c: char| c == '/' || c.is_control())
        };
        let mut folders = Vec::with_capacity(self.folders.len());
        for parts in &self.folders {
            let mut name = String::new();
            for part in parts {
                let value = match part {
                    Part::Text(text) => text,
                    Part::Domain => &*domain,
                    Part::Local => &*local,
                };
                if !matches!(part, Part::Text(_)) && !is_safe(value) {
                    return Err(refusal!("550 5.1.1 That mailbox cannot exist here: it is no name of a folder"));
                }
                name.push_str(value);
            }
            if name.len() > MAX_NAME {
                return Err(refusal!("550 5.1.1 That mailbox cannot exist here: its name is too long"));
            }
            folders.push(name);
        }
        Ok(folders)
    }
}

/// The parts of a folder's name. `None`: a placeholder is not known.
fn parts(folder: &str) -> Option<Vec<Part>> {
    let (mut parts, mut rest) = (Vec::new(), folder);
    while !rest.is_empty() {
        let text = rest.split(['{', '}']).next().unwrap_or_default();
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
            rest = rest.strip_prefix(text)?;
        } else if let Some(after) = rest.strip_prefix("{domain}") {
            parts.push(Part::Domain);
            rest = after;
        } else {
            rest = rest.strip_prefix("{local}")?;
            parts.push(Part::Local);
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(template: &str, mailbox: &str) -> String {
        let template = Template::parse(template).unwrap();
        match template.folders(&mailbox.parse().unwrap()) {
            Ok(folders) => format!("{} {}", template.root().display(), folders.join("/")),
            Err(refusal) => refusal.to_string().chars().take(9).collect(),
        }
    }

    #[test]
    fn a_mailbox_has_its_folder_below_the_root() {
        for (template, mailbox, found) in [
            ("/var/mail/{domain}/{local}", "jo@a.test", "/var/mail a.test/jo"),
            ("/var/mail/{domain}/{local}/", "Jo@A.Test", "/var/mail a.test/jo"),
            ("/var/mail/{local}", "\"a b\"@a.test", "/var/mail a b"),
            ("/m/{local}@{domain}/Maildir", "jo@\u{e4}.test", "/m jo@xn--4ca.test/Maildir"),
            ("/m/.{local}", "jo@a.test", "/m .jo"),
            ("/m/{domain}", "jo@[192.0.2.1]", "/m [192.0.2.1]"),
            ("/m/all", "../x@a.test", "/m/all "),
            ("/m/{local}", "\u{c4}nn@a.test", "/m \u{e4}nn"),
            ("/m/{local}", "a\\b@a.test", "/m a\\b"),
        ] {
            let mailbox = if mailbox.contains(['/', '\\']) {
                let (local, domain) = mailbox.rsplit_once('@').unwrap();
                format!("\"{}\"@{domain}", local.replace('\\', "\\\\"))
            } else {
                mailbox.to_owned()
            };
            assert_eq!(path(template, &mailbox), found, "{template} {mailbox}");
        }
    }

    #[test]
    fn no_mailbox_leaves_the_root() {
        let long = "x".repeat(256);
        for local in ["..", ".", "../x", "x/..", "/etc", "a/b", "/", "", ".hidden", "...", &long] {
            let mailbox = format!("\"{local}\"@a.test");
            for template in ["/m/{local}", "/m/{domain}/{local}", "/m/x{local}", "/m/{local}/Maildir"] {
                if let Ok(mailbox) = mailbox.parse::<Mailbox>() {
                    let refused = Template::parse(template).unwrap().folders(&mailbox).unwrap_err();
                    assert!(refused.to_string().starts_with("550 5.1.1 That mailbox cannot"), "{template} {local}");
                }
            }
        }
        // NUL and other controls are in no mailbox that parses.
        assert!("\"a\0b\"@a.test".parse::<Mailbox>().is_err());
        assert_eq!(path("/m/x{local}", &format!("{}@a.test", "y".repeat(254))), format!("/m x{}", "y".repeat(254)));
        assert_eq!(path("/m/x{local}", &format!("{}@a.test", "y".repeat(255))), "550 5.1.1");
    }

    #[test]
    fn a_text_that_is_no_template_is_named() {
        let absolute = |text: &str| TemplateError::NotAbsolute(text.to_owned());
        let folder = |text: &str| TemplateError::Folder(text.to_owned());
        let placeholder = |text: &str| TemplateError::Placeholder(text.to_owned());
        for (text, error) in [
            ("", absolute("")),
            ("mail/{local}", absolute("mail/{local}")),
            ("{local}", absolute("{local}")),
            ("/", folder("")),
            ("/m//{local}", folder("")),
            ("/m/../{local}", folder("..")),
            ("/m/./{local}", folder(".")),
            ("/m/a\0b", folder("a\0b")),
            ("/m/{user}", placeholder("{user}")),
            ("/m/{local", placeholder("{local")),
            ("/m/local}", placeholder("local}")),
            ("/m/{{local}}", placeholder("{{local}}")),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text:?}");
        }
    }
}
