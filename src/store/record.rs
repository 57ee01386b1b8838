//! The contents of the files: JSON objects, each with the number of its format.
//!
//! The number is read first, so that a file of a newer volnet is recognised whatever else it has. A
//! field that its format does not have makes a file unreadable: the next write would lose it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::upgrade;
use crate::model::document::Kept;
use crate::model::name::VmName;
use crate::model::nic::NICS_MAX;
use crate::model::record::{FORMAT, HostRecord, Intent, ProcessId, Record};

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is damaged, or was never a file of volnet.
    Damaged(String),
    /// It was written by a newer volnet, in this format.
    Newer(u32),
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentFile {
    format: u32,
    intent: Intent,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProcessFile {
    format: u32,
    name: VmName,
    process: ProcessId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    format: u32,
    name: String,
    network: Kept,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    format: u32,
    host: HostRecord,
}

/// Encodes a record.
pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    encode(record)
}

/// Decodes a record.
pub(super) fn decode_record(bytes: &[u8]) -> Result<Record, Unreadable> {
    checked(decode(bytes, upgrade::record)?)
}

/// Encodes an intent.
pub(super) fn encode_intent(intent: &Intent) -> Vec<u8> {
    encode(&IntentFile { format: FORMAT, intent: intent.clone() })
}

/// Decodes an intent.
pub(super) fn decode_intent(bytes: &[u8]) -> Result<Intent, Unreadable> {
    let file: IntentFile = decode(bytes, upgrade::intent)?;
    checked(file.intent.record).map(|record| Intent { record, ..file.intent })
}

/// Encodes the process of a VM.
pub(super) fn encode_process(name: &VmName, process: &ProcessId) -> Vec<u8> {
    encode(&ProcessFile { format: FORMAT, name: name.clone(), process: process.clone() })
}

/// Decodes the process of a VM.
pub(super) fn decode_process(bytes: &[u8]) -> Result<(VmName, ProcessId), Unreadable> {
    decode(bytes, |_| ()).map(|file: ProcessFile| (file.name, file.process))
}

/// Encodes a network that was added.
pub(super) fn encode_network(name: &str, network: &Kept) -> Vec<u8> {
    encode(&NetworkFile { format: FORMAT, name: name.into(), network: network.clone() })
}

/// Decodes such a network, with its name.
pub(super) fn decode_network(bytes: &[u8]) -> Result<(String, Kept), Unreadable> {
    decode(bytes, |_| ()).map(|file: NetworkFile| (file.name, file.network))
}

/// Encodes the former state of the host.
pub(super) fn encode_host(host: &HostRecord) -> Vec<u8> {
    encode(&HostFile { format: FORMAT, host: host.clone() })
}

/// Decodes the former state of the host.
pub(super) fn decode_host(bytes: &[u8]) -> Result<HostRecord, Unreadable> {
    decode(bytes, |_| ()).map(|file: HostFile| file.host)
}

/// A record that has a NIC for each network that it is on.
fn checked(mut record: Record) -> Result<Record, Unreadable> {
    // It is written again in this format.
    record.format = FORMAT;
    // A list that grew while it was read has room for four.
    record.nics.shrink_to_fit();
    record.spec.networks.shrink_to_fit();
    let networks = &record.spec.networks;
    let wanted = networks.iter().filter(|network| network.mode.needs_tap_device()).count();
    let possible = match networks.len() {
        1 => true,
        count => (2..=NICS_MAX).contains(&count) && wanted == count,
    };
    if possible && record.nics.len() == wanted {
        return Ok(record);
    }
    let (nics, networks) = (record.nics.len(), networks.len());
    Err(Unreadable::Damaged(format!("it has {nics} NICs and asks for {networks} networks")))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Room for nearly all records, so that none is copied as it grows.
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer_pretty(&mut bytes, value)
        .expect("a record has string keys only and nothing in it fails to serialise");
    bytes.push(b'\n');
    bytes
}

/// Reads a file of any format that was ever written. Each format has an arm; the last is
/// [`FORMAT`]. `upgrade` turns the contents of format 1 into those of format 2. Formats 3 and 4
/// have more fields, which are left out where they say nothing, so each file of format 2 or 3 reads
/// as one of them.
fn decode<T: for<'a> Deserialize<'a>>(
    bytes: &[u8],
    upgrade: impl Fn(&mut Value),
) -> Result<T, Unreadable> {
    let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
    match head.format {
        0 => Err(Unreadable::Damaged("there is no format 0".into())),
        1 => {
            let mut file: Value = serde_json::from_slice(bytes).map_err(damaged)?;
            upgrade(&mut file);
            serde_json::from_value(file).map_err(damaged)
        }
        2..=4 => serde_json::from_slice(bytes).map_err(damaged),
        newer => Err(Unreadable::Newer(newer)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;
    use crate::spec;

    /// Real files that were written in that format.
    fn golden(format: u32) -> Vec<(String, Vec<u8>)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/record");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files =
            entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), path));
        let files = files.filter(|(name, _)| name.starts_with(&format!("{format}-")));
        let mut files: Vec<_> = files.map(|(name, path)| (name, fs::read(path).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn what_format_1_held_is_the_first_nic() {
        let files = golden(1);
        assert_eq!(files.len(), 5);
        for (name, bytes) in files {
            let former: Value = serde_json::from_slice(&bytes).unwrap();
            let record = decode_record(&bytes).unwrap();
            let now: Value = serde_json::to_value(&record).unwrap();
            assert_eq!(now["format"], FORMAT, "{name}");
            for field in ["name", "cid", "created_at", "started_at", "exit", "wanted"] {
                assert_eq!(now[field], former[field], "{field} of {name}");
            }
            for (place, was, is) in
                [("spec", "network", &now["spec"]["networks"][0]), ("", "port", &now["nics"][0])]
            {
                let was = if place.is_empty() { &former[was] } else { &former[place][was] };
                for (field, value) in was.as_object().into_iter().flatten() {
                    assert_eq!(is[field], *value, "{field} of {name}");
                }
            }
            for field in ["exposed", "policy", "limits"] {
                assert_eq!(now["nics"][0][field], former[field], "{field} of {name}");
            }
            assert_eq!(now["spec"]["networks"][0]["expose"], former["spec"]["expose"], "{name}");

            // Whoever asks for the same once more is answered with the VM, not with VmExists.
            let document = |field: &str| Some(&former["spec"][field]);
            let asked = spec::resolve(document("manifest"), document("config")).unwrap();
            assert_eq!(record.spec, asked, "{name}");

            let again = encode_record(&record);
            assert_eq!(decode_record(&again).unwrap(), record, "{name}");
            let action = crate::model::record::Action::Start;
            let intent = serde_json::json!({
                "format": 1, "intent": { "action": "start", "record": former }
            });
            let read = decode_intent(intent.to_string().as_bytes()).unwrap();
            assert_eq!(read, Intent { action, record }, "{name}");
        }
    }

    #[test]
    fn a_network_of_format_4_is_read_whole() {
        let file = include_bytes!("../../tests/golden/network/4-pods.json");
        let (name, network) = decode_network(file).unwrap();
        assert_eq!(name, "pods");
        assert_eq!(String::from_utf8_lossy(&encode_network(&name, &network)).as_bytes(), file);
        let more = String::from_utf8_lossy(file).replace("\"format\"", "\"x\": 1, \"format\"");
        assert!(matches!(decode_network(more.as_bytes()), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn records_of_formats_3_and_4_are_read_whole() {
        let files = [3, 4].map(golden);
        assert_eq!(files.each_ref().map(Vec::len), [1, 4]);
        for (name, bytes) in files.into_iter().flatten() {
            let former: Value = serde_json::from_slice(&bytes).unwrap();
            let now = serde_json::to_value(decode_record(&bytes).unwrap()).unwrap();
            compare(&name, &former, &now);
        }
    }

    /// Each value of a file is still there. The number of its format is new, and so are fields that
    /// say nothing.
    fn compare(place: &str, former: &Value, now: &Value) {
        match (former, now) {
            (Value::Object(fields), Value::Object(_)) => {
                for (field, value) in fields.iter().filter(|(field, _)| *field != "format") {
                    compare(&format!("{place}, {field}"), value, &now[field]);
                }
            }
            (Value::Array(items), Value::Array(others)) => {
                assert_eq!(items.len(), others.len(), "{place}");
                for (at, (item, other)) in items.iter().zip(others).enumerate() {
                    compare(&format!("{place}, {at}"), item, other);
                }
            }
            _ => assert_eq!(former, now, "{place}"),
        }
    }

    #[test]
    fn a_record_of_format_2_is_written_again_in_this_format() {
        let (name, bytes) = golden(2).swap_remove(0);
        let former: Value = serde_json::from_slice(&bytes).unwrap();
        let again = encode_record(&decode_record(&bytes).unwrap());
        let now: Value = serde_json::from_slice(&again).unwrap();
        assert_eq!((&former["format"], &now["format"]), (&2.into(), &FORMAT.into()), "{name}");
        for field in ["name", "nics", "cid", "created_at", "wanted"] {
            assert_eq!(now[field], former[field], "{field} of {name}");
        }
        assert_eq!(decode_record(&again), decode_record(&bytes), "{name}");
    }

    #[test]
    fn a_record_has_a_nic_for_each_network() {
        let (_, bytes) = golden(1).swap_remove(0);
        let mut record = serde_json::to_value(decode_record(&bytes).unwrap()).unwrap();
        let nic = record["nics"][0].take();
        let network = record["spec"]["networks"][0].take();
        let mut vsock_network = network.clone();
        vsock_network["mode"] = "vsock".into();
        for (networks, nics, good) in [
            (vec![&network], vec![&nic], true),
            (vec![&network, &network], vec![&nic, &nic], true),
            (vec![&vsock_network], vec![], true),
            (vec![], vec![], false),
            (vec![&network], vec![], false),
            (vec![&network], vec![&nic, &nic], false),
            (vec![&network, &network], vec![&nic], false),
            (vec![&network, &vsock_network], vec![&nic], false),
            (vec![&vsock_network], vec![&nic], false),
            (vec![&network; NICS_MAX + 1], vec![&nic; NICS_MAX + 1], false),
        ] {
            record["spec"]["networks"] = serde_json::json!(networks);
            record["nics"] = serde_json::json!(nics);
            let read = decode_record(record.to_string().as_bytes());
            assert_eq!(read.is_ok(), good, "{read:?}");
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_in_every_part() {
        let (_, bytes) = golden(1).swap_remove(0);
        let record = serde_json::to_value(decode_record(&bytes).unwrap()).unwrap();
        for part in ["", "/spec", "/spec/networks/0", "/nics/0"] {
            let mut odd = record.clone();
            odd.pointer_mut(part).unwrap()["isolate"] = true.into();
            let read = decode_record(odd.to_string().as_bytes());
            let Err(Unreadable::Damaged(reason)) = read else { panic!("{part}: {read:?}") };
            assert!(reason.starts_with("unknown field `isolate`"), "{part}: {reason}");
        }
    }

    #[test]
    fn a_newer_format_is_known_as_such_whatever_it_holds() {
        let newer = decode_record(b"{\"format\": 5, \"nobody\": \"knows\"}");
        assert_eq!(newer, Err(Unreadable::Newer(FORMAT + 1)));
    }
}
