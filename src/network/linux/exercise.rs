//! Bodies of fuzz targets: each takes any bytes, and panics where this module breaks a promise.

use super::holder;
use crate::engine::name::check_link_name;

/// Whatever else stands in what the kernel says of a descriptor, it is found to hold the tap that
/// it names, and no other.
pub fn tap_holder(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    if check_link_name(name).is_err() {
        return;
    }
    assert!(holder::names(&format!("pos:\t0\niff:\t{name}\n{rest}"), name));
    assert!(!holder::names(&format!("pos:\t0\niff:\t{name}.\n"), name));
    assert!(!holder::names(&format!("iff:\n{name}\n"), name));
}
