//! The documents of Create: the files, with the flags on top.
//!
//! The daemon reads and checks them; here they are only joined. The daemon has another working
//! directory than the caller, so paths of flags are made absolute here.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::spec;

use super::command::{Create, Disk, Override, Setting};

/// The parameters of Create. Relative paths of flags are relative to `base`.
pub(super) fn parameters(
    create: &Create,
    mut manifest: Option<Value>,
    config: Option<Value>,
    base: &Path,
) -> Result<Value, String> {
    let mut config = config.unwrap_or_else(|| json!({}));
    let content = spec::content_mut(&mut config);
    let fields = content.as_object_mut().ok_or("the configuration is not a JSON object")?;
    let named = create.overrides.iter().map(|setting| setting.nic).max().unwrap_or_default();
    if named > 0 {
        list_networks(fields, named + 1)?;
    }
    for setting in &create.overrides {
        apply(fields, setting, base)?;
    }
    for (nic, port) in &create.expose {
        let fields = if *nic > 0 { network(fields, *nic)? } else { &mut *fields };
        list(fields, "expose")?.push(port.clone());
    }
    for arg in &create.args {
        list(fields, "args")?.push(arg.as_str().into());
    }
    for share in &create.shares {
        let path = absolute(&share.path, base)?;
        let described = json!({ "tag": share.tag, "path": path, "readonly": share.readonly });
        list(fields, "shares")?.push(described);
    }
    if !create.disks.is_empty() {
        // A manifest inside the configuration counts only if no other is given.
        if manifest.is_none() {
            manifest = fields.remove("manifest");
        }
        let manifest = manifest.get_or_insert_with(|| json!({}));
        add_disks(manifest, &create.disks, base)?;
    }
    let mut parameters = json!({
        "name": create.name, "config": config, "start": create.start, "dry_run": create.dry_run
    });
    if let Some(manifest) = manifest {
        parameters["manifest"] = manifest;
    }
    Ok(parameters)
}

/// Lets the networks stand in a list of at least so many; the one of `network` is the first.
fn list_networks(fields: &mut Map<String, Value>, least: usize) -> Result<(), String> {
    let single = fields.remove("network").filter(|network| !network.is_null());
    let networks = list(fields, "networks")?;
    if let Some(single) = single {
        networks.insert(0, single);
    }
    networks.resize(networks.len().max(least), json!({}));
    Ok(())
}

/// The list of that name, which is made where it is missing.
fn list<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, String> {
    let list = fields.entry(name).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().ok_or_else(|| format!("{name} is not a JSON array"))
}

/// The section of a network: an element of `networks` where that stands, else `network`.
fn network(fields: &mut Map<String, Value>, nic: usize) -> Result<&mut Map<String, Value>, String> {
    if fields.get("networks").is_none_or(Value::is_null) {
        return section(fields, "network");
    }
    let network = list(fields, "networks")?.get_mut(nic);
    network
        .and_then(Value::as_object_mut)
        .ok_or_else(|| format!("networks[{nic}] is no JSON object"))
}

/// The section of that name, which is made where it is missing.
fn section<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    let inner = fields.entry(name).or_insert(Value::Null);
    if inner.is_null() {
        *inner = json!({});
    }
    inner.as_object_mut().ok_or_else(|| format!("{name} is not a JSON object"))
}

fn apply(fields: &mut Map<String, Value>, setting: &Override, base: &Path) -> Result<(), String> {
    let value = match &setting.value {
        Setting::Value(value) => value.clone(),
        Setting::Path(path) => Value::String(absolute(path, base)?),
        Setting::Image(path) => image(setting.field, path, base)?,
    };
    let mut target = fields;
    for name in setting.section.into_iter().flat_map(|path| path.split('.')) {
        target = match name {
            "network" => network(target, setting.nic)?,
            name => section(target, name)?,
        };
    }
    target.insert(setting.field.into(), value);
    Ok(())
}

/// The section replaces the whole former one: its checksum belonged to another file.
fn image(field: &str, path: &Path, base: &Path) -> Result<Value, String> {
    if field != "rootfs" {
        return Ok(json!({ "url": absolute(path, base)? }));
    }
    let (path, format) = match path.to_str().and_then(|text| text.rsplit_once(",format=")) {
        Some((path, format)) => (Path::new(path), format),
        None => (path, format(path)),
    };
    Ok(json!({ "url": absolute(path, base)?, "format": format }))
}

fn add_disks(manifest: &mut Value, disks: &[Disk], base: &Path) -> Result<(), String> {
    let manifest = manifest.as_object_mut().ok_or("the manifest is not a JSON object")?;
    let list = list(manifest, "disks")?;
    for disk in disks {
        let mut described = json!({
            "source": absolute(&disk.path, base)?,
            "format": disk.format.as_deref().unwrap_or(format(&disk.path)),
            "readonly": disk.readonly
        });
        if let Some(cache) = &disk.cache {
            described["cache"] = cache.as_str().into();
        }
        for (name, limit) in [("mb", disk.mb), ("iops", disk.iops)] {
            if let Some(limit) = limit {
                described["limits"][name] = limit.into();
            }
        }
        list.push(described);
    }
    Ok(())
}

/// The format of an image, by the ending of its name.
fn format(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some(ending) if ending.eq_ignore_ascii_case("qcow2") => "qcow2",
        Some(_) | None => "raw",
    }
}

/// A path of a flag, which begins in `base` if it is relative.
pub(super) fn absolute(path: &Path, base: &Path) -> Result<String, String> {
    if path.as_os_str().is_empty() {
        return Err("the path of a file is empty".into());
    }
    match base.join(path).to_str() {
        Some(path) => Ok(path.into()),
        None => Err(format!("{} is not UTF-8", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> Create {
        Create {
            args: Vec::new(),
            name: "web".into(),
            manifest: None,
            config: None,
            overrides: vec![],
            disks: vec![],
            shares: vec![],
            expose: vec![],
            start: false,
            count: None,
            dry_run: false,
        }
    }

    fn setting(section: Option<&'static str>, field: &'static str, value: Setting) -> Override {
        Override { nic: 0, section, field, value }
    }

    fn merged(create: &Create, manifest: Option<Value>, config: Option<Value>) -> Value {
        parameters(create, manifest, config, Path::new("/home/me")).unwrap()
    }

    #[test]
    fn nothing_given_is_an_empty_configuration() {
        let expected = json!({"name": "web", "config": {}, "start": false, "dry_run": false});
        assert_eq!(merged(&create(), None, None), expected);
    }

    #[test]
    fn flags_win_over_the_configuration_field_by_field() {
        let create = Create {
            overrides: vec![
                setting(Some("network"), "mode", Setting::Value("dhcp".into())),
                setting(Some("network.limits"), "rx_mbit", Setting::Value(100.into())),
                setting(Some("resources"), "cpu_cores", Setting::Value(2.into())),
                setting(None, "kernel_override", Setting::Path("k/vmlinux".into())),
                setting(None, "initramfs", Setting::Image("/i.gz".into())),
                setting(None, "rootfs", Setting::Image("r.QCOW2".into())),
            ],
            ..create()
        };
        let config = json!({
            "network": {"mode": "vsock", "mtu": 1400, "limits": {"rx_mbit": 1, "pps": 5}},
            "resources": null,
            "initramfs": {"url": "/other", "checksum": "ab"}
        });
        assert_eq!(
            merged(&create, None, Some(config))["config"],
            json!({
                "network": {"mode": "dhcp", "mtu": 1400, "limits": {"rx_mbit": 100, "pps": 5}},
                "resources": {"cpu_cores": 2},
                "kernel_override": "/home/me/k/vmlinux",
                "initramfs": {"url": "/i.gz"},
                "rootfs": {"url": "/home/me/r.QCOW2", "format": "qcow2"}
            })
        );
    }

    #[test]
    fn flags_go_into_a_configuration_that_stands_beside_its_version() {
        let mtu = setting(Some("network"), "mtu", Setting::Value(1300.into()));
        let create = Create { overrides: vec![mtu], ..create() };
        let config = json!({"version": 2, "config": {"image": "web"}});
        assert_eq!(
            merged(&create, None, Some(config))["config"],
            json!({"version": 2, "config": {"image": "web", "network": {"mtu": 1300}}})
        );
    }

    #[test]
    fn a_second_network_makes_a_list_of_them() {
        let named = |nic, name: &str| Override {
            nic,
            ..setting(Some("network"), "name", Setting::Value(name.into()))
        };
        let rx = setting(Some("network.limits"), "rx_mbit", Setting::Value(5.into()));
        let port = json!({ "port": 80 });
        let create = Create {
            overrides: vec![named(0, "front"), named(1, "back"), Override { nic: 1, ..rx }],
            expose: vec![(0, port.clone()), (1, port.clone())],
            ..create()
        };
        let back = json!({ "name": "back", "limits": { "rx_mbit": 5 }, "expose": [port] });
        assert_eq!(
            merged(&create, None, None)["config"],
            json!({ "networks": [{ "name": "front" }, back], "expose": [port] })
        );
        // What the file says of the first or of both stays, where no flag says otherwise.
        let config = json!({ "network": { "name": "x", "mtu": 1400 } });
        assert_eq!(
            merged(&create, None, Some(config))["config"],
            json!({ "networks": [{ "name": "front", "mtu": 1400 }, back], "expose": [port] })
        );
        let config = json!({ "networks": [{}, { "mtu": 1300 }, { "name": "third" }] });
        let mut second = back.clone();
        second["mtu"] = 1300.into();
        assert_eq!(
            merged(&create, None, Some(config))["config"]["networks"],
            json!([{ "name": "front" }, second, { "name": "third" }])
        );
    }

    #[test]
    fn disks_go_to_the_manifest_that_counts() {
        let disks = vec![
            Disk { path: "a.img".into(), ..Disk::default() },
            Disk { path: "/b.qcow2".into(), readonly: true, ..Disk::default() },
        ];
        let create = Create { disks, ..create() };
        let a = json!({"source": "/home/me/a.img", "format": "raw", "readonly": false});
        let b = json!({"source": "/b.qcow2", "format": "qcow2", "readonly": true});

        let alone = merged(&create, None, None);
        assert_eq!(alone["manifest"], json!({"disks": [a, b]}));

        let beside = merged(&create, Some(json!({"disks": ["x"]})), None);
        assert_eq!(beside["manifest"]["disks"], json!(["x", a, b]));

        let carried = merged(&create, None, Some(json!({"manifest": {"name": "m"}})));
        assert_eq!(carried["manifest"], json!({"name": "m", "disks": [a, b]}));
        assert_eq!(carried["config"], json!({}));
    }

    #[test]
    fn what_cannot_be_merged_is_said() {
        let mode = setting(Some("network"), "mode", Setting::Value("dhcp".into()));
        let create = Create { overrides: vec![mode], ..create() };
        let base = Path::new("/");
        let wrong = |config| parameters(&create, None, Some(config), base).unwrap_err();
        assert_eq!(wrong(json!([])), "the configuration is not a JSON object");
        assert_eq!(wrong(json!({"network": 1})), "network is not a JSON object");
    }
}
