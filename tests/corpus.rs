//! Replays the corpus of every fuzz target, so that a crash once found stays found.

use std::fs;
use std::path::{Path, PathBuf};

use volnet::{
    cli, config, daemon, dhcp, dhcp6, dns, hypervisor, ndp, netlink, network, nftables, protocol,
    spec, store,
};

/// The name of a target, and the function that it calls.
type Target = (&'static str, fn(&[u8]));

/// Every target.
const TARGETS: &[Target] = &[
    ("command_line", cli::fuzz::command_line),
    ("connections", netlink::fuzz::connections),
    ("datagram", netlink::fuzz::datagram),
    ("dhcp", dhcp::fuzz::conversation),
    ("dhcp6", dhcp6::fuzz::conversation),
    ("dns", dns::fuzz::message),
    ("dns_forward", dns::fuzz::passing),
    ("engine", daemon::fuzz::engine),
    ("ext_ack", netlink::fuzz::ext_ack),
    ("frame", protocol::fuzz::frame),
    ("host_files", daemon::fuzz::host_files),
    ("http", protocol::fuzz::http),
    ("launch", hypervisor::fuzz::launch),
    ("log_tail", hypervisor::fuzz::log_tail),
    ("manifest", spec::fuzz::manifest),
    ("ndp", ndp::fuzz::advertising),
    ("news", network::linux::fuzz::news),
    ("nf_tables", netlink::fuzz::nf_tables),
    ("process_stat", hypervisor::linux::fuzz::process_stat),
    ("record", store::fuzz::record),
    ("reply", protocol::fuzz::reply),
    ("request", protocol::fuzz::request),
    ("rtnetlink", netlink::fuzz::rtnetlink),
    ("ruleset", nftables::fuzz::ruleset),
    ("settings", config::fuzz::settings),
    ("show", cli::fuzz::show),
    ("state", store::fuzz::state),
    ("tap_holder", network::linux::fuzz::tap_holder),
    ("vm_config", spec::fuzz::vm_config),
    ("waking", hypervisor::fuzz::waking),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(fuzz().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_target_is_built_and_replayed() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(targets.is_sorted());
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let package = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let built = package.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    assert_eq!(built.map(|line| line.trim_end_matches(".rs\"")).collect::<Vec<_>>(), targets);
}

#[test]
fn corpora_do_no_harm() {
    env_logger::init();
    for (name, body) in TARGETS {
        let mut files = 0;
        for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            body(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "{name} has no corpus");
    }
}
