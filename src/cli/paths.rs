//! Paths in the documents of a VM, as the daemon takes them.
//!
//! The daemon has another working directory than the caller, and reads no texts for cloud-init. So
//! the paths of a document that are relative are made absolute here, by the folder of the document,
//! and a `path` of `cloud_init` is replaced by what the file holds. The daemon checks the
//! documents: what has another form is left to it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use crate::protocol::frame::MESSAGE_MAX;

use super::Trouble;
use super::session::file;

/// The texts of `cloud_init`.
const TEXTS: [&str; 3] = ["user_data", "meta_data", "network_config"];

/// Settles the paths of a manifest that stands in this folder.
pub(super) fn of_manifest(manifest: &mut Value, folder: &Path) -> Result<(), Trouble> {
    files(manifest, folder);
    let disks = manifest.get_mut("disks").and_then(Value::as_array_mut);
    for disk in disks.into_iter().flatten() {
        make_absolute(disk, "source", folder);
    }
    texts(manifest, folder)
}

/// Settles the paths of a configuration that stands in this folder.
pub(super) fn of_config(config: &mut Value, folder: &Path) -> Result<(), Trouble> {
    files(config, folder);
    make_absolute(config, "kernel_override", folder);
    make_absolute(config, "from", folder);
    if let Some(manifest) = config.get_mut("manifest") {
        of_manifest(manifest, folder)?;
    }
    texts(config, folder)
}

/// The files that both documents may name.
fn files(document: &mut Value, folder: &Path) {
    for name in ["initramfs", "rootfs"] {
        if let Some(section) = document.get_mut(name) {
            make_absolute(section, "url", folder);
        }
    }
}

/// Makes a relative path absolute, also behind `file://`.
fn make_absolute(of: &mut Value, field: &str, folder: &Path) {
    let Some(Value::String(text)) = of.get_mut(field) else { return };
    let path = match text.trim().split_once("://") {
        Some((scheme, path)) if scheme.eq_ignore_ascii_case("file") => path,
        Some(_) => return,
        None => text.trim(),
    };
    if let (false, Some(path)) = (path.is_empty(), folder.join(path).to_str()) {
        *text = path.into();
    }
}

/// Replaces the paths of texts for cloud-init by what the files hold.
pub(super) fn texts(document: &mut Value, folder: &Path) -> Result<(), Trouble> {
    let Some(section) = document.get_mut("cloud_init").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for name in TEXTS {
        let Some(text) = section.get_mut(name) else { continue };
        let path = text.get("path").and_then(Value::as_str).unwrap_or_default().trim();
        if !path.is_empty() {
            *text = json!({ "inline": true, "content": read(&folder.join(path))? });
        }
    }
    Ok(())
}

/// Reads a text. It is refused if it does not fit a message.
pub(super) fn read(path: &Path) -> Result<String, Trouble> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MESSAGE_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Trouble::Input(format!("{} is not UTF-8", path.display())),
        _ => file("cannot read", path, error),
    })?;
    match text.len() > MESSAGE_MAX {
        true => {
            let reason = format!("{} is longer than {MESSAGE_MAX} bytes", path.display());
            Err(Trouble::Input(reason))
        }
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Scratch;

    #[test]
    fn relative_paths_begin_in_the_folder_of_the_document() {
        let mut manifest = json!({
            "rootfs": {"url": "file://web.img"}, "initramfs": {"url": "/i"},
            "disks": [{"source": "d.img"}, {"source": "https://example.com/e"}, 7, {"source": ""}]
        });
        of_manifest(&mut manifest, Path::new("/srv/web")).unwrap();
        let expected = json!({
            "rootfs": {"url": "/srv/web/web.img"}, "initramfs": {"url": "/i"},
            "disks": [{"source": "/srv/web/d.img"}, {"source": "https://example.com/e"}, 7,
                      {"source": ""}]
        });
        assert_eq!(manifest, expected);
        let mut config = json!({
            "kernel_override": "vmlinux", "initramfs": {"url": "file:///i"},
            "manifest": {"rootfs": {"url": "r"}}
        });
        of_config(&mut config, Path::new("/srv")).unwrap();
        let expected = json!({
            "kernel_override": "/srv/vmlinux", "initramfs": {"url": "/i"},
            "manifest": {"rootfs": {"url": "/srv/r"}}
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn other_forms_are_left_to_the_daemon() {
        for document in [json!({}), json!({"rootfs": 1, "disks": {}, "cloud_init": []})] {
            let (mut manifest, mut config) = (document.clone(), document.clone());
            of_manifest(&mut manifest, Path::new("/")).unwrap();
            of_config(&mut config, Path::new("/")).unwrap();
            assert_eq!((&manifest, &config), (&document, &document));
        }
    }

    #[test]
    fn texts_for_cloud_init_are_read_here() {
        let scratch = Scratch::new();
        std::fs::write(scratch.path().join("user.yaml"), "#cloud-config\n").unwrap();
        let section = json!({
            "user_data": {"path": " user.yaml ", "inline": false},
            "meta_data": {"content": "a: b"}, "network_config": {"path": ""}
        });
        let mut config = json!({ "manifest": { "cloud_init": section } });
        of_config(&mut config, scratch.path()).unwrap();
        let read = &config["manifest"]["cloud_init"];
        assert_eq!(read["user_data"], json!({"inline": true, "content": "#cloud-config\n"}));
        assert_eq!(read["meta_data"], section["meta_data"]);
        let mut missing = json!({ "cloud_init": { "user_data": { "path": "other" } } });
        let trouble = texts(&mut missing, scratch.path()).unwrap_err().words();
        assert!(trouble.starts_with("cannot read ") && trouble.contains("other: "), "{trouble}");
        std::fs::write(scratch.path().join("other"), [b'x'; MESSAGE_MAX + 1]).unwrap();
        let trouble = texts(&mut missing, scratch.path()).unwrap_err().words();
        assert!(trouble.ends_with(&format!("is longer than {MESSAGE_MAX} bytes")), "{trouble}");
        std::fs::write(scratch.path().join("other"), [0xff]).unwrap();
        let trouble = texts(&mut missing, scratch.path()).unwrap_err().words();
        assert!(trouble.ends_with("is not UTF-8"), "{trouble}");
    }
}
