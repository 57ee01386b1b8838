//! Networks that come and go: whose they are, and when they end.

use super::*;
use crate::engine::added::{Adding, Addition, UNUSED_MS};
use crate::model::document::Kept;

pub(super) fn pods(subnet: &str) -> Addition {
    let host = subnet.replace(".0/29", ".1");
    let config = NetworkConfig::sample("pods", "vn-pods", subnet, &host);
    (Kept::new(&serde_json::json!({ "name": "pods", "subnet": subnet })), config)
}

pub(super) fn on_pods(ephemeral: bool) -> VmSpec {
    let network = NetworkSpec { name: Some("pods".into()), ..NetworkSpec::default() };
    VmSpec { networks: vec![network], ephemeral, ..VmSpec::default() }
}

fn create(engine: &mut Engine, spec: VmSpec, now: Now) -> Result<Step, Error> {
    let (name, notes) = (VmName::new("a").unwrap(), Vec::new());
    let spec = Box::new(spec);
    engine.request(1, &Change::Create { name, spec, start: false, dry_run: false, notes }, now)
}

#[test]
fn a_network_is_replaced_or_removed_only_while_it_is_nobodys() {
    let mut engine = engine();
    let (first, other) = (pods("10.7.0.0/29"), pods("10.8.0.0/29"));
    assert_eq!(engine.adding(&first.1, false), Ok(Adding::New));
    assert_eq!(engine.exchange_network("pods", Some(first.clone()), at(0)), Ok(None));
    assert_eq!(engine.adding(&first.1, false), Ok(Adding::Known));
    let exists = Refusal::NetworkExists { name: "pods".into() };
    assert_eq!(engine.adding(&other.1, false), Err(exists));
    assert_eq!(engine.adding(&other.1, true), Ok(Adding::New));
    let default = NetworkConfig { name: "default".into(), ..other.1.clone() };
    let exists = Refusal::NetworkExists { name: "default".into() };
    assert_eq!(engine.adding(&default, true), Err(exists), "it is of the settings");
    let unknown = Refusal::NetworkNotFound { name: "default".into() };
    assert_eq!(engine.removing("default"), Err(unknown));

    let lasting = create(&mut engine, on_pods(false), at(0));
    assert!(matches!(lasting, Err(Error::Refused(Refusal::InvalidConfig { .. }))), "{lasting:?}");
    let Ok(Step::Do(decision)) = create(&mut engine, on_pods(true), at(0)) else { panic!() };
    done(&mut engine, *decision, at(0));
    let in_use = Refusal::NetworkInUse { name: "pods".into(), vms: 1 };
    assert_eq!(engine.adding(&other.1, true), Err(in_use.clone()));
    assert_eq!(engine.removing("pods"), Err(in_use));
    assert_eq!(engine.unused_network(at(10 * UNUSED_MS)), None);
}

#[test]
fn a_network_that_nobody_uses_ends_later_the_later_it_was_used() {
    let mut engine = engine();
    engine.exchange_network("pods", Some(pods("10.7.0.0/29")), at(0)).unwrap();
    assert_eq!(engine.deadline(), Some(UNUSED_MS));
    engine.network_used("pods", at(1_000));
    assert_eq!(engine.deadline(), Some(UNUSED_MS + 1_000));
    let Ok(Step::Do(decision)) = create(&mut engine, on_pods(true), at(2_000)) else { panic!() };
    done(&mut engine, *decision, at(2_000));
    assert_eq!(engine.deadline(), None);
    let name = VmName::new("a").unwrap();
    let gone = engine.request(2, &Change::Delete { name, timeout_ms: 0 }, at(3_000));
    let Ok(Step::Do(decision)) = gone else { panic!("{gone:?}") };
    done(&mut engine, *decision, at(3_000));
    assert_eq!(engine.unused_network(at(UNUSED_MS + 2_999)), None);
    assert_eq!(engine.unused_network(at(UNUSED_MS + 3_000)), Some("pods".into()));
    assert!(engine.exchange_network("pods", None, at(0)).unwrap().is_some());
    assert_eq!(
        (engine.deadline(), engine.networks().len()),
        (None, super::engine().networks().len())
    );
}

#[test]
fn a_vm_that_is_refused_on_its_second_network_has_nothing_of_the_first() {
    let mut engine = engine();
    engine.exchange_network("pods", Some(pods("10.7.0.0/29")), at(0)).unwrap();
    let before: Vec<_> = engine.networks();
    let first = NetworkSpec::default();
    let second = on_pods(false).networks.remove(0);
    let lost = NetworkSpec { name: Some("lost".into()), ..NetworkSpec::default() };
    for second in [second, lost] {
        let spec = VmSpec { networks: vec![first.clone(), second], ..VmSpec::default() };
        assert!(create(&mut engine, spec, at(0)).is_err());
        assert_eq!(engine.networks(), before);
    }
}
