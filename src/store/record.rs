//! The contents of the files: JSON objects, each with the number of its format.
//!
//! The number is read first, so that a file of a newer volnet is recognised whatever else it has. A
//! field that its format does not have makes a file unreadable: the next write would lose it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::upgrade;

use crate::model::name::VmName;
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
    decode(bytes, upgrade::record)
}

/// Encodes an intent.
pub(super) fn encode_intent(intent: &Intent) -> Vec<u8> {
    encode(&IntentFile { format: FORMAT, intent: intent.clone() })
}

/// Decodes an intent.
pub(super) fn decode_intent(bytes: &[u8]) -> Result<Intent, Unreadable> {
    decode(bytes, upgrade::intent).map(|file: IntentFile| file.intent)
}

/// Encodes the process of a VM.
pub(super) fn encode_process(name: &VmName, process: &ProcessId) -> Vec<u8> {
    encode(&ProcessFile { format: FORMAT, name: name.clone(), process: process.clone() })
}

/// Decodes the process of a VM.
pub(super) fn decode_process(bytes: &[u8]) -> Result<(VmName, ProcessId), Unreadable> {
    decode(bytes, |_| ()).map(|file: ProcessFile| (file.name, file.process))
}

/// Encodes the former state of the host.
pub(super) fn encode_host(host: &HostRecord) -> Vec<u8> {
    encode(&HostFile { format: FORMAT, host: host.clone() })
}

/// Decodes the former state of the host.
pub(super) fn decode_host(bytes: &[u8]) -> Result<HostRecord, Unreadable> {
    decode(bytes, |_| ()).map(|file: HostFile| file.host)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .expect("a record has string keys only and nothing in it fails to serialise");
    bytes.push(b'\n');
    bytes
}

/// Reads a file of any format that was ever written. Each format has an arm; the last is
/// [`FORMAT`]. `upgrade` turns the contents of format 1 into those of format 2.
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
        2 => serde_json::from_slice(bytes).map_err(damaged),
        newer => Err(Unreadable::Newer(newer)),
    }
}
