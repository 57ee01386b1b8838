//! Attachments: network namespaces of others, such as containers and pods, that have a place on a
//! network of volnet.
//!
//! An attachment is a VM like any other, with a link pair in place of a tap: one end is a port of
//! the bridge, the other is in the namespace. There it belongs to the namespace, or stands for a
//! tap that a hypervisor of others opens. Nobody starts it or stops it. It ends with its link, and
//! so with its namespace.
//!
//! Who runs hypervisors in the host's own namespace may attach that, too. Then no pair is needed:
//! the VM has a tap on the bridge, as one that is created has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Refusal;
use super::name::{LINK_NAME_MAX, VM_NAME_MAX, VmName};

/// The most bytes of the name of a configuration, and of a container.
const TEXT_MAX: usize = 255;
/// The most bytes of a label and of its value: a namespace of Kubernetes (63) and a pod (253).
const LABEL_MAX: usize = 63 + 1 + 253;
/// The most labels.
const LABELS_MAX: usize = 16;
/// The most bytes of a path (PATH_MAX, linux/limits.h, with its terminator).
const PATH_MAX: usize = 4095;
/// Bytes of a container in the name of its VM, if that is shortened.
const SHORTENED: usize = 38;

/// What tells an attachment from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentId {
    /// The configuration that it was made by: the `name` of a CNI network configuration.
    pub cni: String,
    /// The container, as its engine calls it.
    pub container: String,
    /// The name of the link in the namespace.
    pub ifname: String,
}

/// An attachment, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    #[serde(flatten)]
    pub id: AttachmentId,
    /// The path of the namespace, as its engine knows it. volnet does not open it.
    pub netns: String,
    /// The name of the tap in the namespace by which a VM there has the network. Without one, the
    /// namespace itself has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The namespace is that of the host, volnet's own: the VM's tap is the port of the bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host: bool,
    /// What people call it, such as `pod: default/web`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl AttachmentId {
    /// Checks the three names.
    pub fn check(&self) -> Result<(), Refusal> {
        check_identifier("cni", &self.cni)?;
        check_identifier("container", &self.container)?;
        check_link("ifname", &self.ifname)
    }

    /// The name of its VM: `CONTAINER.IFNAME`, if that can be one. Else the container is shortened
    /// and has a hash of all three names behind it.
    pub fn vm_name(&self) -> VmName {
        let plain = format!("{}.{}", self.container, self.ifname);
        VmName::new(&plain).unwrap_or_else(|_| {
            let digest = Sha256::new()
                .chain_update(&self.cni)
                .chain_update([0])
                .chain_update(&self.container)
                .chain_update([0])
                .chain_update(&self.ifname)
                .finalize();
            let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
            let container: String = self.container.chars().take(SHORTENED).collect();
            let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let ifname: String = self.ifname.chars().filter(legal).collect();
            let name = format!("{container}.{hash}.{ifname}");
            debug_assert!(name.len() <= VM_NAME_MAX, "each part has its bound");
            VmName::new(&name).expect("the container begins it, and all characters are legal")
        })
    }
}

impl Attachment {
    /// Whether it is for a guest behind a tap. If not, the namespace itself has the network.
    pub fn is_for_guest(&self) -> bool {
        self.host || self.tap.is_some()
    }

    /// Checks all that was asked for.
    pub fn check(&self) -> Result<(), Refusal> {
        self.id.check()?;
        if let Some(tap) = &self.tap {
            if self.host {
                let reason = "the tap is a port of the bridge, and volnet names it";
                return Err(refuse("tap", reason.into()));
            }
            check_link("tap", tap)?;
            if *tap == self.id.ifname {
                return Err(refuse("tap", format!("{tap:?} is the name of the link, too")));
            }
        }
        let is_text = |text: &str, most| !text.chars().any(char::is_control) && text.len() <= most;
        if self.netns.is_empty() || !is_text(&self.netns, PATH_MAX) {
            return Err(refuse("netns", format!("{:?} is not a path", self.netns)));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(refuse("labels", format!("there are more than {LABELS_MAX}")));
        }
        match self.labels.iter().find(|(key, value)| {
            key.is_empty() || !is_text(key, LABEL_MAX) || !is_text(value, LABEL_MAX)
        }) {
            Some((key, _)) => {
                let reason = format!("the label {key:?} is not 1 to {LABEL_MAX} bytes of text");
                Err(refuse("labels", reason))
            }
            None => Ok(()),
        }
    }
}

/// Checks a name as CNI has it: of `[A-Za-z0-9._-]`, the first a letter or a digit.
fn check_identifier(field: &str, text: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    match begins && text.len() <= TEXT_MAX && text.bytes().all(legal) {
        true => Ok(()),
        false => {
            let shown: String = text.chars().take(TEXT_MAX).collect();
            let reason = format!(
                "{shown:?} is not 1 to {TEXT_MAX} letters, digits, '.', '_' and '-', of which the \
                 first is a letter or a digit"
            );
            Err(refuse(field, reason))
        }
    }
}

/// Checks the name of a link of the kernel (net/core/dev.c, `dev_valid_name`), without the `%` of a
/// pattern.
fn check_link(field: &str, name: &str) -> Result<(), Refusal> {
    let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    if name.is_empty() || name.len() > LINK_NAME_MAX || matches!(name, "." | "..") {
        return Err(refuse(field, format!("{name:?} is not the name of a link")));
    }
    match name.bytes().all(legal) {
        true => Ok(()),
        false => Err(refuse(field, format!("{name:?} has a character that links have not"))),
    }
}

fn refuse(field: &str, reason: String) -> Refusal {
    Refusal::InvalidConfig { field: format!("attachment.{field}"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(cni: &str, container: &str, ifname: &str) -> AttachmentId {
        let [cni, container, ifname] = [cni, container, ifname].map(str::to_string);
        AttachmentId { cni, container, ifname }
    }

    #[test]
    fn a_name_of_a_vm_is_made_of_any_names() {
        let long = "0123456789abcdef".repeat(4);
        let names = [
            id("pods", "default-c1", "eth0"),
            id("pods", &long, "eth0"),
            id("pods", &long, "eth1"),
            id("other", &long, "eth0"),
            id("pods", &long, "a@b+c"),
            id("pods", &long, "123456789012345"),
            id("pods", "c1", "eth0@"),
        ];
        let mut made: Vec<String> = Vec::new();
        for id in names {
            id.check().unwrap();
            let name = id.vm_name().to_string();
            assert!(!made.contains(&name), "{name}");
            made.push(name);
        }
        assert_eq!(made[0], "default-c1.eth0");
        assert_eq!(made[1].len(), 38 + 1 + 8 + 1 + 4);
        assert_eq!(made[5].len(), VM_NAME_MAX);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "c".repeat(256);
        for (id, field) in [
            (id("", "c", "eth0"), "attachment.cni"),
            (id("a b", "c", "eth0"), "attachment.cni"),
            (id("a", "", "eth0"), "attachment.container"),
            (id("a", "../c", "eth0"), "attachment.container"),
            (id("a", &long, "eth0"), "attachment.container"),
            (id("a", "c", ""), "attachment.ifname"),
            (id("a", "c", ".."), "attachment.ifname"),
            (id("a", "c", "1234567890123456"), "attachment.ifname"),
            (id("a", "c", "e/0"), "attachment.ifname"),
            (id("a", "c", "e:0"), "attachment.ifname"),
            (id("a", "c", "e 0"), "attachment.ifname"),
        ] {
            match id.check() {
                Err(Refusal::InvalidConfig { field: wrong, .. }) => assert_eq!(wrong, field),
                other => panic!("{id:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn labels_and_the_path_have_bounds() {
        let good = Attachment {
            id: id("pods", "c1", "eth0"),
            netns: "/run/netns/a".into(),
            tap: None,
            host: false,
            labels: BTreeMap::from([("pod".into(), "default/web".into())]),
        };
        good.check().unwrap();
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Attachment>(&text).unwrap(), good);
        for tap in ["eth0", "", "a/b", "tap%d", "1234567890123456"] {
            assert!(Attachment { tap: Some(tap.into()), ..good.clone() }.check().is_err(), "{tap}");
        }
        let tap = Some("tap0".to_string());
        Attachment { tap: tap.clone(), ..good.clone() }.check().unwrap();
        Attachment { host: true, ..good.clone() }.check().unwrap();
        Attachment { host: true, tap, ..good.clone() }.check().unwrap_err();
        let label = |key: &str, value: &str| BTreeMap::from([(key.into(), value.into())]);
        for labels in [label("", "x"), label("a\n", "x"), label("a", &"x".repeat(318))] {
            assert!(Attachment { labels, ..good.clone() }.check().is_err());
        }
        let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert!(Attachment { labels: many, ..good.clone() }.check().is_err());
        for netns in [String::new(), "/".repeat(4096), "/run\0".into()] {
            assert!(Attachment { netns, ..good.clone() }.check().is_err());
        }
    }
}
