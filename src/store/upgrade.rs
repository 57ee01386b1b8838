//! Files of format 1, read as if they were of format 2.
//!
//! In format 1 a VM was on one network: `port` was its NIC, and `exposed`, `policy` and `limits`
//! stood beside it; `spec` had one `network`, with `expose` beside it. What is not as it should be
//! is left as it is, for whoever reads the file to say so.

use serde_json::{Map, Value, json};

/// A file that holds a record.
pub(super) fn record(file: &mut Value) {
    let Some(record) = file.as_object_mut() else { return };
    let port = record.remove("port").unwrap_or_default();
    let traffic = ["exposed", "policy", "limits"].map(|name| (name, record.remove(name)));
    let nics = match port {
        Value::Object(nic) => json!([with(nic, traffic)]),
        Value::Null => json!([]),
        other => other,
    };
    record.insert("nics".into(), nics);
    record.insert("format".into(), json!(2));
    let Some(spec) = record.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let expose = [("expose", spec.remove("expose"))];
    if let Some(Value::Object(network)) = spec.remove("network") {
        spec.insert("networks".into(), json!([with(network, expose)]));
    }
}

/// A file that holds an intent.
pub(super) fn intent(file: &mut Value) {
    if let Some(inner) = file.pointer_mut("/intent/record") {
        record(inner);
    }
}

fn with<const N: usize>(
    mut object: Map<String, Value>,
    fields: [(&str, Option<Value>); N],
) -> Map<String, Value> {
    for (name, value) in fields {
        object.extend(value.map(|value| (name.to_string(), value)));
    }
    object
}
