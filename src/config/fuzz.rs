//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

use std::collections::BTreeSet;

use super::*;
use crate::engine::ledger::Ledger;
use crate::model::prefix::Prefix;

/// The daemon can start with all accepted settings. The file begins at the first brace. Before it
/// are flags (`--subnet=10.0.0.0/24`) and variables (`VOLNET_KVM=no`), one per line.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (outside, file) = text.split_at(text.find('{').unwrap_or(text.len()));
    let (mut flags, mut environment) = (Flags::default(), BTreeMap::new());
    for (name, value) in outside.lines().filter_map(|line| line.split_once('=')) {
        let named = |key: &Key| key.flag.filter(|flag| name.strip_prefix("--") == Some(flag));
        match KEYS.iter().find_map(named) {
            Some(flag) => flags.set(flag, value.into()),
            None => drop(environment.insert(name.into(), value.into())),
        }
    }
    let file = (!file.is_empty()).then_some(file);
    match resolve(&flags, &environment, file, "host") {
        Ok(settings) => check(&settings),
        Err(Refusal::InvalidConfig { field, .. }) => assert!(!field.is_empty()),
        Err(refusal) => panic!("{refusal:?}"),
    }
}

fn check(settings: &Settings) {
    let Settings { socket, state_dir, runtime_dir, log_dir, .. } = settings;
    assert!([socket, state_dir, runtime_dir, log_dir].into_iter().all(|path| path.is_absolute()));
    assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
    settings.hypervisors.program(&settings.machine.hypervisor).expect("the default is described");
    let networks = &settings.networks;
    Ledger::new(networks.clone()).expect("every network can be");
    let names: BTreeSet<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    let bridges: BTreeSet<_> = networks.iter().map(|it| (it.bridge.as_str(), it.mac)).collect();
    assert_eq!((names.len(), bridges.len()), (networks.len(), networks.len()));
    let subnets = networks.iter().filter_map(|network| network.ipv4);
    let mut subnets: Vec<Prefix> = subnets.map(|ipv4| ipv4.prefix).collect();
    subnets.sort_by_key(|subnet| subnet.network());
    assert!(subnets.windows(2).all(|pair| !pair[0].overlaps(pair[1])) && !subnets.is_empty());
}
